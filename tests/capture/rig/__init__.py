"""Servers of every version, and a source on one of them."""
