"""Alerts: problems told by webhook, when they are new, when they stay, and when they are over."""
