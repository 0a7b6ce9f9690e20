"""Tests of the events in Kafka."""
