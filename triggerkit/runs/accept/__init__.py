"""Accepting runs: by themselves, or in a transaction of the caller's."""
