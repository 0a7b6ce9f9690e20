"""A run's outcome is always written, whatever breaks around its attempt."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import executing, working
from triggerkit import task
from triggerkit.worker.attempts import Attempts
from triggerkit.worker.coroutines import Coroutines
from triggerkit.worker.telemetry.output import capture_output


class Unheard(io.TextIOWrapper):
    """A stream that takes ASCII alone."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")


@contextmanager
def printing_to(stream: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What tasks print goes to `stream`, as in a worker whose standard output that is."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        release = capture_output(None)
        try:
            yield
        finally:
            release()


def closed() -> Unheard:
    """A stream that is closed."""
    stream = Unheard()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [closed(), Unheard(), None], ids=["closed", "ascii", "none"])
def test_what_cannot_be_printed_fails_no_run(
    triggers: RunState, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell() -> None:
        print("a name with a surrogate: caf\udce9", "and Ω")
        print("without an end", end="")

    @task(retry=1)
    def told() -> str:
        tell()
        return "done"

    @task(retry=1)
    async def atold() -> str:
        tell()
        return "done"

    ids = [handle.id for each in (told, atold) for handle in [each.trigger(), each.trigger()]]
    with printing_to(stream, monkeypatch), working(triggers, told, atold, threads=1, async_runs=1):
        triggers.wait_for_status("completed", *ids)
    lines = "SELECT DISTINCT name FROM triggerkit.spans WHERE kind = 'log' ORDER BY name"
    assert triggers.rows(lines) == [
        "a name with a surrogate: caf\\udce9 and Ω",
        "without an end",
    ]


class Refusing(logging.Filter):
    """A filter of the project's that fails."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise SystemExit(f"in a filter, at {record.name}")


def test_logging_of_the_projects_that_fails_costs_no_outcome_and_no_slot(
    triggers: RunState,
) -> None:
    @task(retry=1)
    def fails() -> None:
        raise ValueError("no luck")

    @task(retry=1)
    async def afails() -> None:
        raise ValueError("no luck")

    ids = [h.id for each in (fails, afails) for h in [each.trigger(), each.trigger()]]
    logger, refusing = logging.getLogger("triggerkit.runs"), Refusing()
    logger.addFilter(refusing)
    try:
        with working(triggers, fails, afails, threads=1, async_runs=1):
            triggers.wait_for_status("failed", *ids)
    finally:
        logger.removeFilter(refusing)


def test_our_own_code_that_breaks_around_an_attempt_ends_it(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("broken tracing")

    monkeypatch.setattr("triggerkit.worker.execute.otel_attempt", broken)
    monkeypatch.setattr("triggerkit.worker.execute.finish_lines", broken)

    @task(retry=1)
    def plain() -> None: ...

    @task(retry=1)
    async def aplain() -> None: ...

    ids = [h.id for each in (plain, aplain) for h in [each.trigger(), each.trigger()]]
    with working(triggers, plain, aplain, threads=1, async_runs=1):
        rows = triggers.wait_for_status("failed", *ids)
    assert {row["error"]["message"] for row in rows} == {"broken tracing"}


class ByAttribute(Exception):
    """As clients make them: what the API answered, by attribute."""

    def __getattr__(self, name: str) -> Any:
        return {"code": 7}[name]


def test_an_error_that_cannot_be_described_ends_its_run(triggers: RunState) -> None:
    @task(retry=1)
    def calls() -> None:
        raise ByAttribute("no such user")

    @task(retry=1)
    async def acalls() -> None:
        raise ByAttribute("no such user")

    ids = [h.id for each in (calls, acalls) for h in [each.trigger(), each.trigger()]]
    with working(triggers, calls, acalls, threads=1, async_runs=1):
        rows = triggers.wait_for_status("failed", *ids)
    assert {row["error"]["message"] for row in rows} == {"no such user"}


def test_an_attempt_that_comes_to_no_outcome_ends_its_run(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("broken judgement")

    monkeypatch.setattr("triggerkit.worker.execute.Executor._broken", broken)
    monkeypatch.setattr("triggerkit.worker.execute.Executor._executed", broken)

    @task(retry=1)
    def plain() -> None: ...

    @task(retry=1)
    async def aplain() -> None: ...

    ids = [h.id for each in (plain, aplain) for h in [each.trigger(), each.trigger()]]
    with working(triggers, plain, aplain, threads=1, async_runs=1):
        rows = triggers.wait_for_status("failed", *ids)
    assert {row["error"]["message"] for row in rows} == {"broken judgement"}


def test_an_outcome_that_no_further_try_can_write_is_a_failure_of_its_run_alone(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(retry=1)
    def good() -> str:
        return "done"

    @task(retry=1)
    def odd() -> str:
        return "done"

    end = Attempts._end

    def with_bytes(self: Attempts, attempt: Any, outcome: Any, seconds: float) -> bool:
        if outcome.run.task == "odd":
            object.__setattr__(outcome, "output", b"\xff")
        return end(self, attempt, outcome, seconds)

    monkeypatch.setattr(Attempts, "_end", with_bytes)
    handles = [odd.trigger(), good.trigger()]
    with working(triggers, good, odd):
        [row] = triggers.wait_for_status("failed", handles[0].id)
        triggers.wait_for_status("completed", handles[1].id)
    assert "the outcome cannot be stored" in row["error"]["message"]


def test_an_exit_in_a_gathered_coroutine_fails_its_run_and_no_other(triggers: RunState) -> None:
    go_on = asyncio.Event()

    async def exits(given: BaseException) -> None:
        await asyncio.sleep(0.01)
        raise given

    @task(retry=1)
    async def gathers(name: dict[str, str]) -> None:
        error = SystemExit("bye") if name["error"] == "exit" else KeyboardInterrupt("stop")
        await asyncio.gather(asyncio.sleep(0.02), exits(error))

    @task(retry=1)
    async def stops_the_loop() -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return "done"

    @task(retry=1)
    async def other() -> str:
        await go_on.wait()
        return "done"

    with working(triggers, gathers, stops_the_loop, other):
        waiting = other.trigger()
        triggers.wait_for_status("executing", waiting.id)
        handles = [gathers.trigger({"error": name}) for name in ("exit", "interrupt")]
        rows = triggers.wait_for_status("failed", *(h.id for h in handles))
        triggers.wait_for_status("completed", stops_the_loop.trigger().id)

        @task(retry=1)
        async def unused() -> None: ...

        go_on._loop.call_soon_threadsafe(go_on.set)  # type: ignore[attr-defined]
        triggers.wait_for_status("completed", waiting.id)
    assert [row["error"]["type"] for row in rows] == ["SystemExit", "KeyboardInterrupt"]


def test_context_variables_of_one_run_are_not_those_of_the_next(triggers: RunState) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("of a task", default="unset")

    @task(retry=1)
    def sets() -> str:
        before = variable.get()
        variable.set("set")
        return before

    ids = [sets.trigger().id for _ in range(5)]
    with executing(triggers.settings, triggers.namespace, sets, threads=1):
        rows = triggers.wait_for_status("completed", *ids)
    assert {row["output"] for row in rows} == {'"unset"'}


def test_an_output_of_numbers_that_json_does_not_have_is_the_same_where_it_is_read(
    triggers: RunState,
) -> None:
    @task
    def counts() -> list[int]:
        return [2**70, -(2**70), 2**64 - 1, 1]

    @task
    def measures() -> dict[str, float]:
        return {"none": float("nan"), "most": float("inf"), "least": -float("inf"), "one": 1.5}

    with working(triggers, counts, measures):
        assert counts.trigger_and_wait() == [2**70, -(2**70), 2**64 - 1, 1]
        measured = measures.trigger_and_wait()
    assert math.isnan(measured.pop("none"))
    assert measured == {"most": math.inf, "least": -math.inf, "one": 1.5}


class Leaving:
    """A value that ends the program where it is to be shown."""

    def __repr__(self) -> str:
        raise SystemExit(3)


def test_an_output_that_cannot_be_shown_is_no_failure_of_its_run(triggers: RunState) -> None:
    @task(retry=1)
    def leaves() -> Any:
        return Leaving()

    handle = leaves.trigger()
    with working(triggers, leaves):
        [row] = triggers.wait_for_status("completed", handle.id)
    assert row["output"] == '"(output not stored: Leaving is not JSON)"'


def test_a_run_that_is_canceled_before_its_first_step_is_executed_all_the_same(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Coroutines._begin
    canceled: list[object] = []

    def begin_and_cancel(self: Coroutines, runs: Any) -> None:
        begin(self, runs)
        if not canceled:
            canceled.extend(task for task in asyncio.all_tasks() if task.cancel())

    monkeypatch.setattr(Coroutines, "_begin", begin_and_cancel)

    @task(retry=1)
    async def other() -> None: ...

    ids = [other.trigger().id for _ in range(3)]
    with working(triggers, other, threads=1, async_runs=1):
        triggers.wait_for_status("completed", *ids)
    assert canceled
