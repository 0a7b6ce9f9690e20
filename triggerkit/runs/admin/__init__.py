"""Runs as people look at them and act on them: lists, reasons, cancel, pause."""
