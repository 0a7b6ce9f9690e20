"""Events as deliveries send them: as the bodies of pushes, or into Kafka."""
