"""A replay from a time starts with the first entry that was committed then or later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.parked import TABLE, command, fetch, until
from tests.integration.pipeline import execute, pipeline
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)

#: When the entries were committed, in seconds: shortly before others that come earlier in the log.
COMMITTED = (0.0, 0.4, 0.2, 0.9, 0.8, 5.0)


@pytest.mark.parametrize(
    ("seconds", "first"), [(-9, 1), (0, 1), (0.1, 2), (0.3, 2), (0.5, 4), (0.95, 6), (5, 6), (6, 7)]
)
def test_a_replay_from_a_time_starts_at_the_first_entry_of_that_time(
    settings: Settings, seconds: float, first: int
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items"), TABLE) as receiver:
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 6), 'x'")
            await receiver.until(lambda: len(receiver.requests) == 6)
            done = "SELECT min(position) FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            await until(settings, done, lambda rows: rows == [(None,)])
        times = [BEGINNING + timedelta(seconds=committed_s) for committed_s in COMMITTED]
        await command(
            settings,
            lambda state: state.execute(
                "UPDATE triggerkit.events SET commit_at = (%s::timestamptz[])[position]", [times]
            ),
        )
        [(consumer_id,)] = await fetch(settings, "SELECT id FROM triggerkit.consumers")
        wanted = (BEGINNING + timedelta(seconds=seconds)).isoformat()
        rewound = await command(settings, lambda state: rewind(state, consumer_id, wanted))
        assert (rewound.first_position, rewound.entries) == (first, 7 - first)

    asyncio.run(scenario())
