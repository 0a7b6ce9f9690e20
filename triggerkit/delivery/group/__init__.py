"""Deliveries of the partitions that one of several processes has."""
