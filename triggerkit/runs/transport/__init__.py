"""Carry the ids of ready runs to workers."""
