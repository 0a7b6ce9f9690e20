"""Limits of queues across workers: runs at a time, starts in a period, pause and resume."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.run_state import RunState
from tests.integration.runs.test_declared_runs import apply
from tests.integration.worker_thread import working
from triggerkit import Queue, Retry, Task, task
from triggerkit.errors import ConfigurationError
from triggerkit.state.channels import KEEPER


class Together:
    """How many are inside at once, and when each came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0
        self.starts: list[float] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            self.starts.append(time.monotonic())
            self._inside += 1
            self.most = max(self.most, self._inside)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1


def pause(state: RunState, queue: str) -> None:
    """Pause a queue, as the command does."""
    with state.connection.transaction():
        state.connection.execute(
            "INSERT INTO triggerkit.queues (name, paused_at) VALUES (%s, now()) "
            "ON CONFLICT (name) DO UPDATE SET paused_at = now()",
            [queue],
        )
        state.connection.execute(
            "UPDATE triggerkit.runs SET gate = 'held' WHERE queue = %s AND status = 'queued'",
            [queue],
        )


def resume(state: RunState, queue: str) -> None:
    """Resume it."""
    state.connection.execute(
        "UPDATE triggerkit.queues SET paused_at = NULL WHERE name = %s", [queue]
    )
    state.connection.execute(f"SELECT pg_notify('{KEEPER}', '')")


def shortest(state: RunState, count: int) -> float:
    """The shortest time in which one more than `count` runs of the queue `slow` started."""
    at = "extract(epoch FROM started_at)::float"
    starts = state.rows(f"SELECT {at} FROM triggerkit.runs WHERE queue = 'slow' ORDER BY 1")
    return float(min(b - a for a, b in zip(starts, starts[count:], strict=False)))


def test_never_more_than_the_limit_execute_in_all_workers_together(triggers: RunState) -> None:
    together = Together()
    queue = Queue("narrow", concurrency=3)

    @task(queue=queue, retry=Retry(max_attempts=2, min_delay_s=0))
    def first(given: dict[str, int]) -> None:
        with together.one():
            time.sleep(0.02)
            if given["n"] % 5 == 0 and not given.get("again"):
                raise ValueError("again")

    @task(queue=queue)
    async def second(given: dict[str, int]) -> None:
        with together.one():
            await asyncio.sleep(0.01)

    apply(triggers, first, second)
    numbers = [{"n": n} for n in range(30)]
    with working(triggers, first, second), working(triggers, first, second):
        handles = first.trigger_many(numbers[:15]) + second.trigger_many(numbers)
        handles += first.trigger_many(numbers[15:])
        triggers.wait_for(
            lambda: {"queued", "executing", "retrying"}.isdisjoint(triggers.statuses()), 40
        )
    assert together.most == 3
    assert triggers.rows("SELECT DISTINCT gate FROM triggerkit.runs") == [None]
    assert len(together.starts) == len(handles) + 6


def test_never_more_than_the_rate_start_in_any_period(triggers: RunState) -> None:
    together = Together()

    @task(queue=Queue("slow", rate="5/s"))
    def call() -> None:
        with together.one():
            pass

    apply(triggers, call)
    handles = [call.trigger() for _ in range(16)]
    with working(triggers, call, threads=2), working(triggers, call, threads=8):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert shortest(triggers, 5) > 1
    assert together.starts[-1] - together.starts[0] < 12


def test_what_was_let_through_and_could_not_start_counts_when_it_does(triggers: RunState) -> None:
    together = Together()
    go_on = threading.Event()

    @task(queue=Queue("slow", rate="3/s"))
    def call() -> None:
        with together.one():
            pass

    @task
    def long() -> None:
        go_on.wait(20)

    apply(triggers, call)
    handles = [long.trigger() for _ in range(3)]
    with working(triggers, call, long, threads=3):
        triggers.wait_for(lambda: triggers.statuses() == ["executing"] * 3)
        handles += [call.trigger() for _ in range(9)]
        # Longer than the period: those let through at once have no slot until now.
        time.sleep(1.5)
        go_on.set()
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert len(together.starts) == 9
    assert shortest(triggers, 3) > 1


def test_a_paused_queue_starts_nothing_and_goes_on_when_resumed(triggers: RunState) -> None:
    done: defaultdict[str, int] = defaultdict(int)

    def counting(name: str) -> Task[dict[str, int], [], None]:
        @task(name=name, queue=name)
        def count(given: dict[str, int]) -> None:
            done[name] += 1

        return count

    stopped, other = counting("stopped"), counting("other")
    before = stopped.trigger({"n": 0})
    pause(triggers, "stopped")
    after = stopped.trigger({"n": 1})
    late = stopped.trigger({"n": 2}, delay=0.1)
    with working(triggers, stopped, other):
        triggers.wait_for(lambda: triggers.run(late.id)["status"] == "queued")
        triggers.wait_for_status("completed", other.trigger({"n": 0}).id)
        assert done == {"other": 1}
        resume(triggers, "stopped")
        triggers.wait_for_status("completed", before.id, after.id, late.id)


def test_a_limited_queue_can_be_paused_too_and_keeps_its_limit(triggers: RunState) -> None:
    together = Together()

    @task(queue=Queue("narrow", concurrency=2))
    def work() -> None:
        with together.one():
            time.sleep(0.05)

    apply(triggers, work)
    with working(triggers, work, threads=8):
        pause(triggers, "narrow")
        handles = [work.trigger() for _ in range(10)]
        assert apply(triggers, work) == []
        resume(triggers, "narrow")
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert together.most == 2


@pytest.mark.parametrize("rate", ["100", "0/s", "5/0s", "1/./s", "five/s", "5/w"])
def test_a_rate_that_cannot_be_read_is_refused(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="is no rate; examples are"):
        Queue("slow", rate=rate)


def test_a_limit_of_nothing_is_refused_naming_pause() -> None:
    with pytest.raises(ConfigurationError, match="triggerkit queues pause slow"):
        Queue("slow", concurrency=0)
