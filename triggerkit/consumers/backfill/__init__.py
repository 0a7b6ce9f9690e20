"""Backfills: the rows that exist are read into the log, exactly beside live changes."""
