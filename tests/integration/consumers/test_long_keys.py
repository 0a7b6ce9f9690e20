"""Rows and groups whose keys are longer than an index takes."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

from tests.integration.consumers.test_trace import traced
from tests.integration.pipeline import execute, streaming
from tests.integration.run_state import RunState
from tests.integration.serving import serving
from tests.integration.worker_thread import working
from tests.receiver import Receiver
from triggerkit import Change, rows, task
from triggerkit.consumers.declare.apply import apply
from triggerkit.state.connect import connect
from triggerkit.tasks.registry import declared_consumers
from triggerkit.web.application import Application

#: As long as a primary key of Postgres can be, of text that does not compress.
LONG = token_hex(1300)


def test_a_row_and_a_group_of_any_length_run_their_tasks(state: RunState) -> None:
    settings = state.settings
    seen: list[str] = []

    @task(on=rows("public.items"), retry=1)
    def one(change: Change[dict[str, Any]]) -> None:
        seen.append(change.record["id"])

    @task(on=rows("public.items", group_by=["team"], batch_size=5), retry=1)
    def many(changes: list[Change[dict[str, Any]]]) -> None:
        seen.extend(change.record["id"] for change in changes)

    async def captured(url: str) -> None:
        await execute(
            settings,
            "CREATE TABLE items (id text PRIMARY KEY, team text)",
            f"INSERT INTO items VALUES ('{LONG}', repeat('{LONG}', 40))",
        )
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as stated,
        ):
            tasks: dict[str, Any] = {"one": one, "many": many}
            await apply(source, stated, declared_consumers(tasks), url)
        async with streaming(settings, Receiver(url=url)):
            await asyncio.to_thread(state.wait_for, lambda: len(state.statuses()) == 2, 30.0)
            await execute(settings, "UPDATE items SET team = team || 'x'")
            await asyncio.to_thread(
                state.wait_for, lambda: state.statuses() == ["completed"] * 4, 30.0
            )

    with serving(Application(settings, [one, many], None)) as site, working(state, one, many):
        asyncio.run(captured(f"http://127.0.0.1:{site.port}"))
    assert seen == [LONG] * 4
    positions = state.rows("SELECT position FROM triggerkit.events ORDER BY position")
    traces = [asyncio.run(traced(settings, position, "one")) for position in positions]
    found = [way for trace in traces for way in trace.consumers if way.runs]
    assert len(found) == 2, "the runs of the row read and of its update, by the hash of their keys"
