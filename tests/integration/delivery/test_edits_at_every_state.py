"""A consumer whose every option is edited at any state of its lanes, checked by the promises."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as options
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from starlette.responses import JSONResponse, Response

from tests.integration.delivery.test_edited import bodies_by_id, edit
from tests.integration.parked import TABLE, command
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

Record = dict[str, Any]

#: Rows that change, each many times: their `name` is the version.
ROWS = 12

#: What no edit lets be left out, beside what may be.
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.sampled_from([1, 2, 7, 100]),
        "batch_timeout_s": st.sampled_from([0.0, 0.05]),
        "concurrency": st.sampled_from([1, 3, 8]),
        "filters": st.sampled_from([(), (("id", ">", 0),)]),
        "group_by": st.sampled_from([("id",), ("team",), ("team", "id")]),
        "when_changed": st.sampled_from([("name",), ("name", "team")]),
        "actions": st.sampled_from([("insert", "update"), ("insert", "update", "delete")]),
        "max_attempts": st.sampled_from([50, None]),
        "on_exhausted": st.sampled_from(["block", "skip"]),
        "timeout_s": st.sampled_from([5.0, 30.0]),
    },
)

#: What the receiver does until it is told otherwise.
ANSWERS = ["take", "fail", "refuse some", "name some", "lose", "unreadable", "drop"]


class Answers:
    """A receiver that misbehaves as told, and remembers what it took in which order."""

    def __init__(self) -> None:
        self.way = "take"
        self.taken: list[Record] = []
        #: Of each row, how many requests with it are under way.
        self.under_way: dict[int, int] = {}
        self.overlaps = 0
        self.answered = asyncio.Event()

    async def __call__(self, received: Received) -> Response:
        rows = {m["record"]["id"] for m in received.messages}
        self.overlaps += any(self.under_way.get(row, 0) for row in rows)
        for row in rows:
            self.under_way[row] = self.under_way.get(row, 0) + 1
        try:
            await asyncio.sleep(0)
            return self._answer(received)
        finally:
            self.answered.set()
            for row in rows:
                self.under_way[row] -= 1

    def _answer(self, received: Received) -> Response:
        odd = [m for m in received.messages if int(m["record"]["id"]) % 3 == 0]
        if self.way == "fail":
            return JSONResponse({}, 503)
        if self.way == "refuse some" and odd:
            return JSONResponse({}, 422)
        if self.way == "unreadable":
            return Response(b'{"failed": [', media_type="application/json")
        failed = odd if self.way == "name some" else []
        self.taken += [m for m in received.messages if m not in failed]
        if self.way == "lose":
            return JSONResponse({}, 500)
        if self.way == "drop":
            return JSONResponse({}, 408)
        keys = [m["metadata"]["idempotency_key"] for m in failed]
        return JSONResponse({"failed": [{"idempotency_key": key} for key in keys]})


async def let_go(state: psycopg.AsyncConnection) -> None:
    """Have all that is parked tried now."""
    async with state.transaction():
        # As commands do before they change what is parked: else a retry may wait for this.
        await state.execute(
            "SELECT FROM triggerkit.cursors ORDER BY consumer_id, partition FOR NO KEY UPDATE"
        )
        await state.execute(
            "UPDATE triggerkit.parked SET due_at = now(), state = "
            "CASE WHEN state = 'blocked' THEN 'failing' ELSE state END"
        )


class Edits(RuleBasedStateMachine):
    """One database and one consumer; each rule is a step that somebody may take at any time."""

    settings: Settings
    examples = count()

    def __init__(self) -> None:
        super().__init__()
        # Each example has rows of its own.
        self.first_row = 3 * ROWS * next(self.examples)
        self.loop = asyncio.new_event_loop()
        self.answers = Answers()
        self.stack = AsyncExitStack()
        self.stream = AsyncExitStack()
        self.version = 0
        self.written: dict[int, list[str]] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @initialize(first=OPTIONS)
    def begin(self, first: Record) -> None:
        async def begin() -> None:
            receiver = Receiver.start(self.answers)
            self.receiver = await self.stack.enter_async_context(receiver)
            await command(self.settings, lambda s: s.execute("DELETE FROM triggerkit.consumers"))
            await declare(self.settings, self.receiver, changes("items", **first))
            await self.stream.enter_async_context(streaming(self.settings, self.receiver))

        self.run(begin())

    @rule(rows=st.sets(st.integers(1, ROWS), min_size=1))
    def write(self, rows: set[int]) -> None:
        self.version += 1
        ids = [self.first_row + row for row in sorted(rows)]
        values = ", ".join(f"({id_}, 'v{self.version:05}', 'team')" for id_ in ids)
        statement = (
            f"INSERT INTO items VALUES {values} ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        )
        for id_ in ids:
            self.written.setdefault(id_, []).append(f"v{self.version:05}")
        self.run(execute(self.settings, statement))

    @rule(after=OPTIONS)
    def edit(self, after: Record) -> None:
        self.run(edit(self.settings, self.receiver, changes("items", **after)))

    @rule(before=OPTIONS, after=OPTIONS, way=st.sampled_from(["fail", "lose", "name some"]))
    def edit_what_waits(self, before: Record, after: Record, way: str) -> None:
        """Edit when batches wait to be sent again, which few random steps come to."""
        self.answers.way = way
        self.edit({"batch_size": 100, **before})
        for _ in range(3):
            self.write({*range(1, ROWS + 1)})
        self.let_go_on(8)
        self.edit({"batch_size": 1, **after})
        self.answers.way = "take"
        self.let_go_on(8)

    @rule(way=st.sampled_from(ANSWERS))
    def answer(self, way: str) -> None:
        self.answers.way = way

    @rule(requests=st.integers(1, 5))
    def let_go_on(self, requests: int) -> None:
        """Wait for some requests, if any come."""

        async def wait() -> None:
            wanted = len(self.receiver.requests) + requests
            try:
                await self.receiver.until(lambda: len(self.receiver.requests) >= wanted, 0.3)
            except TimeoutError:
                return

        self.run(wait())

    @rule()
    def restart(self) -> None:
        async def restart() -> None:
            await self.stream.aclose()
            await self.stream.enter_async_context(streaming(self.settings, self.receiver))

        self.run(restart())

    def teardown(self) -> None:
        try:
            if hasattr(self, "receiver"):
                self.answers.way = "take"
                self.run(self.settle())
                self.check()
        finally:
            self.run(self.stream.aclose())
            self.run(self.stack.aclose())
            self.loop.close()

    async def settle(self) -> None:
        """All that was written is taken, whatever waited or was parked."""
        await command(self.settings, let_go)
        await edit(self.settings, self.receiver, changes("items", batch_size=3))
        async with asyncio.timeout(40):
            while self.missing():
                self.answers.answered.clear()
                await self.answers.answered.wait()

    def missing(self) -> dict[int, list[str]]:
        taken = {(m["record"]["id"], m["record"]["name"]) for m in self.answers.taken}
        return {
            row: lost
            for row, versions in self.written.items()
            if (lost := [v for v in versions if (row, v) not in taken])
        }

    def check(self) -> None:
        for row, versions in self.written.items():
            records = [m["record"] for m in self.answers.taken]
            first = list(dict.fromkeys(r["name"] for r in records if r["id"] == row))
            assert first == versions, (row, first, versions)
        assert self.answers.overlaps == 0
        assert all(len(bodies) == 1 for bodies in bodies_by_id(self.receiver).values())


@pytest.mark.timeout(600)
def test_every_option_is_edited_at_every_state_and_nothing_is_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.1)

    asyncio.run(execute(settings, TABLE))

    async def prepare() -> None:
        async with Receiver.start() as receiver:
            await declare(settings, receiver, changes("items"))

    asyncio.run(prepare())
    Edits.settings = settings
    run_state_machine_as_test(
        Edits,
        settings=options(
            max_examples=6,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
