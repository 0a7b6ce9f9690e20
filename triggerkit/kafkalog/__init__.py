"""The log on Kafka: entries as messages of a topic of its own, written once, read by position."""
