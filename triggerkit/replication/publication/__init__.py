"""The publication: what a source database tells of, and what Postgres refuses because of it."""
