"""Consumer groups over the embedded log: instances, who of them has which partition, offsets."""
