"""The state database: its schema and how to connect to it."""
