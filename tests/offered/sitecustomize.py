"""Offers the log on Kafka to any Python process that has this folder on its path."""

from triggerkit.configuration import log_settings

log_settings.OFFERED = frozenset(("postgres", "kafka"))
