"""Delivery: consumers' messages pushed over HTTP, in order per row, until they are taken."""
