"""The events REST API under `/kafka`: fetch, consume by group, offsets; with HTTP Basic."""
