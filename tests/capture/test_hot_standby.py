"""A standby where the primary belongs: `check` names it, and where to go instead."""

from __future__ import annotations

import asyncio

from tests.capture.rig.project import project
from tests.capture.rig.source import Source
from triggerkit.supervisor.checks import run_checks


def test_a_hot_standby_is_named(source: Source, database_url: str, redis_url: str) -> None:
    settings = project(source, database_url, redis_url)
    source.close()
    source.server.stand_by()
    try:
        found = {check.name: check for check in asyncio.run(run_checks(settings, []))}
        check = found["primary server"]
        assert check.failed
        assert "hot standby" in check.detail
        remedy = "set DATABASE_URL to the primary's address"
        if source.version >= 16:
            remedy += ", and TRIGGERKIT_STANDBY_URL to this one, to stream from it"
        assert check.remedy == remedy
    finally:
        source.server.take_over()
        source.reconnect()
    assert all(c.name != "primary server" for c in asyncio.run(run_checks(settings, [])))
