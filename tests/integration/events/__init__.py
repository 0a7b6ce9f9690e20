"""Tests of events with a real Postgres and a real Kafka."""
