"""A row changes in Postgres, a Python task runs."""
