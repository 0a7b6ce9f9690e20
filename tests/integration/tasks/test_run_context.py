"""What a run changes of itself is stored without holding up the event loop, before its outcome."""

from __future__ import annotations

import asyncio
import threading
import time

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import current_run, task
from triggerkit.errors import ConfigurationError, NotDurable

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


def test_what_is_changed_over_a_lost_connection_is_stored(triggers: RunState) -> None:
    def lose_connections() -> None:
        with psycopg.connect(triggers.settings.state_dsn) as outside:
            outside.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'triggerkit worker%'"
            )

    @task(retry=1)
    def changes() -> None:
        run = current_run()
        run.set_metadata(step=1)
        lose_connections()
        run.set_metadata(step=2)
        lose_connections()
        run.add_tags("seen")

    handle = changes.trigger()
    with working(triggers, changes):
        triggers.wait_for_status("completed", handle.id)
    assert triggers.rows(METADATA, handle.id) == [({"step": 2}, ["seen"])]


def test_the_async_twins_raise_if_it_is_not_stored(triggers: RunState) -> None:
    raised: list[str] = []

    @task(retry=1)
    async def changes() -> None:
        run = current_run()
        for change in (run.aset_metadata(step=1), run.aadd_tags("seen")):
            with pytest.raises(NotDurable) as caught:
                await change
            raised.append(str(caught.value))

    with psycopg.connect(triggers.settings.state_dsn) as outside:
        outside.execute(
            "ALTER TABLE triggerkit.runs ADD CHECK (metadata = '{}'), ADD CHECK (tags = '{}')"
        )
    handle = changes.trigger()
    with working(triggers, changes):
        triggers.wait_for_status("completed", handle.id)
    assert raised == [f"the tags and metadata of {handle.id} could not be stored"] * 2


def test_what_postgres_cannot_store_is_refused_by_name_and_the_rest_is_stored(
    triggers: RunState,
) -> None:
    @task(retry=1)
    def changes() -> None:
        run = current_run()
        run.add_tags("first")
        for text in ("a\0b", "a\ud800"):
            with pytest.raises(ConfigurationError, match="tag 'a"):
                run.add_tags(text)
            for bad in (text, [text], {text: 1}):
                with pytest.raises(ConfigurationError, match="metadata"):
                    run.set_metadata(step=1, bad=bad)
        with pytest.raises(ConfigurationError, match="'bad' has a NUL"):
            run.set_metadata(step=1, bad="a\0b")
        run.add_tags("last")
        run.set_metadata(step=2, written="\\u0000")

    for options in ({"tags": ["a\0b"]}, {"metadata": {"bad": "a\0b"}}):
        with pytest.raises(ConfigurationError, match="NUL"):
            changes.trigger(**options)
    handle = changes.trigger()
    with working(triggers, changes):
        triggers.wait_for_status("completed", handle.id)
    assert triggers.rows(METADATA, handle.id) == [
        ({"step": 2, "written": "\\u0000"}, ["first", "last"])
    ]
