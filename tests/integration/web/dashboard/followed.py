"""A row that was inserted and updated, and whose changes ran a task: the whole way is real."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.pipeline import execute, streaming
from tests.integration.run_state import RunState
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from tests.integration.worker_thread import Row, working
from tests.receiver import Receiver
from triggerkit import Change, changes, current_run, span, task
from triggerkit.consumers.declare.apply import apply
from triggerkit.state.connect import connect
from triggerkit.tasks.registry import declared_consumers


@contextmanager
def followed(state: RunState) -> Iterator[Visitor]:
    """Somebody who is logged in where the task `tell` has run twice, each time at its second
    attempt."""
    settings = state.settings

    @task(on=changes("public.items"), retry=2)
    def tell(change: Change[Row]) -> str:
        """Greet."""
        with span("greet"):
            current_run().log("hello", "INFO")
        if current_run().attempt == 1:
            raise ConnectionError("away")
        return "done"

    async def captured(url: str) -> None:
        await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, text text)")
        await execute(settings, "ALTER TABLE items REPLICA IDENTITY FULL")
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as stated,
        ):
            await apply(source, stated, declared_consumers({"tell": tell}), url)
        async with streaming(settings, Receiver(url=url)):
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await asyncio.to_thread(state.wait_for, lambda: state.statuses() == ["completed"], 30.0)
            await execute(settings, "UPDATE items SET text = 'two'")
            wanted = ["completed", "completed"]
            await asyncio.to_thread(state.wait_for, lambda: state.statuses() == wanted, 30.0)

    with dashboard(settings, [tell]) as visitor, working(state, tell):
        asyncio.run(captured(visitor.origin))
        state.wait_for(lambda: state.rows("SELECT count(*) >= 8 FROM triggerkit.spans")[0])
        yield visitor.log_in()
