"""Consumers: which changes go where, how far each has come, and the backfill of existing rows."""
