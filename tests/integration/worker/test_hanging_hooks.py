"""Hooks that hang: cancel and max_duration reach them, and they hold neither run nor slot."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker.test_stopping import cancel, spin
from tests.integration.worker_thread import working
from triggerkit import task
from triggerkit.tasks.task import Task


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks have little time of their own."""
    monkeypatch.setattr("triggerkit.worker.attempt.HOOKS_S", 0.4)


async def ahang(*_: Any) -> None:
    """An async hook that does not end for a while."""
    await asyncio.sleep(30)


def hang(*_: Any) -> None:
    """A sync one."""
    spin()


def made(is_async: bool, raises: bool, **options: Any) -> Task[Any, Any, Any]:
    """A task that ends at once."""

    def end() -> str:
        if raises:
            raise ValueError("no luck")
        return "done"

    async def aend() -> str:
        return end()

    declared: Task[Any, Any, Any] = task(name="ends", retry=1, **options)(aend if is_async else end)
    return declared


# A sync hook of an async task blocks the event loop: that is the watchdog's matter.
@pytest.mark.parametrize(("is_async", "hook"), [(False, hang), (False, ahang), (True, ahang)])
@pytest.mark.parametrize("ends", ["completed", "failed"])
def test_max_duration_ends_the_hooks_that_follow_and_the_outcome_stays(
    triggers: RunState, is_async: bool, hook: Any, ends: str
) -> None:
    act = made(is_async, ends == "failed", max_duration=0.3)
    (act.on_success if ends == "completed" else act.on_failure)(hook)
    ids = [act.trigger().id, act.trigger().id]
    with working(triggers, act, threads=1, async_runs=1):
        rows = triggers.wait_for_status(ends, *ids)
    assert {row["attempt"] for row in rows} == {1}
    told = "SELECT DISTINCT name FROM triggerkit.spans WHERE kind = 'log'"
    [line] = triggers.rows(told)
    assert line == "the hooks were stopped: their time was over, or it was canceled"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_is_canceled_while_its_success_hook_hangs(triggers: RunState, is_async: bool) -> None:
    entered: list[float] = []
    act = made(is_async, raises=False)

    async def waits(*_: Any) -> None:
        entered.append(time.monotonic())
        await asyncio.sleep(30)

    act.on_success(waits)
    handle = act.trigger()
    with working(triggers, act, threads=1, async_runs=1):
        triggers.wait_for(lambda: entered)
        cancel(triggers, handle.id)
        triggers.wait_for_status("completed", handle.id)
    assert time.monotonic() - entered[0] < 10


@pytest.mark.parametrize("is_async", [False, True])
def test_the_hooks_of_a_run_that_was_stopped_have_a_moment_and_no_more(
    triggers: RunState, is_async: bool
) -> None:
    heard: list[str] = []

    def busy() -> None:
        spin()

    async def abusy() -> None:
        await asyncio.sleep(30)

    act: Any = task(name="ends", max_duration=0.2, retry=1)(abusy if is_async else busy)

    @act.on_failure  # type: ignore[untyped-decorator]
    def notes(*_: Any) -> None:
        heard.append("failure")

    @act.on_failure  # type: ignore[untyped-decorator]
    async def hangs(*_: Any) -> None:
        heard.append("hangs")
        await asyncio.sleep(30)

    ids = [act.trigger().id, act.trigger().id]
    with working(triggers, act, threads=1, async_runs=1):
        triggers.wait_for_status("timed_out", *ids)
    assert heard == ["failure", "hangs"] * 2


def test_a_cancel_hook_is_not_canceled_by_the_cancellation_it_is_called_at(
    triggers: RunState,
) -> None:
    heard: list[str] = []

    @task
    async def busy() -> None:
        heard.append("task")
        await asyncio.sleep(30)

    @busy.on_cancel
    async def canceled(*given: Any) -> None:
        for _turn in range(3):
            triggers.connection.execute("SELECT pg_notify('triggerkit_wake', '')")
            await asyncio.sleep(0.1)
        heard.append("canceled")

    handle = busy.trigger()
    with working(triggers, busy):
        triggers.wait_for(lambda: heard)
        cancel(triggers, handle.id)
        triggers.wait_for_status("canceled", handle.id)
    assert heard == ["task", "canceled"]
