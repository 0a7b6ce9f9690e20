"""Fetches runs for a process: as many as it has slots for, short ones by the several."""
