"""Calls of the functions that consumers name, in a process that can be ended."""
