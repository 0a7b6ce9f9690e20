"""The replication slot, its server, and why a stream is refused."""
