"""Events in Kafka: its client's settings, its topics, and a producer that keeps order per key."""
