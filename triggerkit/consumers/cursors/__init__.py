"""Cursors: how far each consumer is in the log, stored with the batch that is under way."""
