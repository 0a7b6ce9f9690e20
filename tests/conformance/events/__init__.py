"""The events REST API, over the log and over Kafka, and clients of both."""
