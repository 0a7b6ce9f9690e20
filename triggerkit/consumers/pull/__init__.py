"""Pulled consumers: receive, acknowledge, hand back, extend."""
