"""The log: every change once, in commit order, in Postgres."""
