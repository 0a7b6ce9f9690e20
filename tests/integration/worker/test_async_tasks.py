"""Async runs: many at a time on one event loop, and what becomes of all when one blocks it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import task


def test_two_hundred_runs_wait_at_once_without_a_thread_each(triggers: RunState) -> None:
    inside = 0
    most: list[int] = []
    threads: list[int] = []
    all_here = asyncio.Event()

    @task
    async def waits() -> None:
        nonlocal inside
        inside += 1
        most.append(inside)
        if inside == 200:
            threads.append(threading.active_count())
            all_here.set()
        await all_here.wait()
        inside -= 1

    @task
    def sync() -> None: ...

    @task
    async def first() -> None: ...

    with working(triggers, waits, sync, first, async_runs=200):
        # All that takes runs has begun, and the portal that triggers here.
        triggers.wait_for_status("completed", sync.trigger().id, first.trigger().id)
        before = threading.active_count()
        handles = [waits.trigger() for _ in range(200)]
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert max(most) == 200
    assert threads[0] <= before + 1


def test_no_more_async_runs_execute_than_there_are_slots(triggers: RunState) -> None:
    inside: set[int] = set()
    most: list[int] = []

    @task
    async def waits(given: dict[str, int]) -> None:
        inside.add(given["n"])
        most.append(len(inside))
        await asyncio.sleep(0.02)
        inside.remove(given["n"])

    handles = waits.trigger_many([{"n": n} for n in range(40)])
    with working(triggers, waits, async_runs=5):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert max(most) == 5


def test_who_blocks_the_event_loop_is_named_with_the_line(
    triggers: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    async def blocks() -> None:
        time.sleep(1.8)  # noqa: ASYNC251 - the point

    handle = blocks.trigger()
    with working(triggers, blocks):
        triggers.wait_for_status("completed", handle.id)
    [told] = [r.getMessage() for r in caplog.records if "event loop has been blocked" in r.message]
    assert "asyncio.to_thread" in told
    assert "time.sleep(1.8)" in told
    assert __file__ in told
