"""Deliver events into Kafka: the cursor moves once the broker has them."""
