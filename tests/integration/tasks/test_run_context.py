"""What a run changes of itself is stored without holding up the event loop, before its outcome."""

from __future__ import annotations

import asyncio
import threading
import time

import psycopg

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import current_run, task

METADATA = "SELECT metadata, tags FROM triggerkit.runs WHERE id = %s"


def test_metadata_that_waits_for_a_lock_holds_up_no_other_run(triggers: RunState) -> None:
    is_locked = threading.Event()
    took: list[float] = []

    @task(retry=1)
    async def changes() -> None:
        assert await asyncio.to_thread(is_locked.wait, 20)
        began = time.monotonic()
        for step in range(5):
            current_run().set_metadata(step=step)
        current_run().add_tags("seen")
        took.append(time.monotonic() - began)

    @task(retry=1)
    async def other() -> str:
        return "done"

    handle = changes.trigger()
    with working(triggers, changes, other):
        triggers.wait_for_status("executing", handle.id)
        with psycopg.connect(triggers.settings.state_dsn) as connection:
            connection.execute("SELECT FROM triggerkit.runs WHERE id = %s FOR UPDATE", [handle.id])
            is_locked.set()
            triggers.wait_for(lambda: took)
            assert took[0] < 0.2
        triggers.wait_for_status("completed", handle.id, other.trigger().id)
    # Its outcome was written after what it had changed.
    assert triggers.rows(METADATA, handle.id) == [({"step": 4}, ["seen"])]


def test_the_async_twins_return_once_it_is_stored(triggers: RunState) -> None:
    shown: list[object] = []

    @task(retry=1)
    async def changes() -> None:
        run = current_run()
        await run.aset_metadata(step=1)
        await run.aadd_tags("seen")
        async with await psycopg.AsyncConnection.connect(triggers.settings.state_dsn) as outside:
            shown.append(await (await outside.execute(METADATA, [run.id])).fetchone())

    handle = changes.trigger()
    with working(triggers, changes):
        triggers.wait_for_status("completed", handle.id)
    assert shown == [({"step": 1}, ["seen"])]
