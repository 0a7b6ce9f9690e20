"""A project whose source is one of the servers that are captured from; its state is elsewhere."""

from __future__ import annotations

from tests.capture.rig.source import Source
from tests.conftest import WEBHOOK_SECRET
from triggerkit.settings import Settings


def project(source: Source, state_url: str, redis_url: str) -> Settings:
    """Return the settings of a project on `source`."""
    return Settings.parse(
        {
            "DATABASE_URL": source.url,
            "TRIGGERKIT_STATE_URL": state_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )
