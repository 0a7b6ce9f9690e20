"""The Dramatiq broker: its threads execute the runs of sync tasks."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from dramatiq.broker import Consumer, MessageProxy

from triggerkit.runs.run import ClaimedRun, ReadyRun
from triggerkit.worker.attempts import Attempts
from triggerkit.worker.fetch.fetcher import WAIT_S, Fetcher
from triggerkit.worker.fetch.slots import Slots

logger = logging.getLogger(__name__)

#: The one queue Dramatiq sees, and its one actor: a message of it is a turn of a thread, which
#: executes what is claimed until nothing is.
QUEUE = "runs"
ACTOR = "turn"

#: Seconds that a claimed run may wait for a thread; then it is put back, for another worker.
STALE_S = 0.25


class RunBroker(dramatiq.Broker):
    """Consumes runs. Nothing is enqueued through it: `.trigger()` accepts runs in Postgres."""

    def __init__(
        self,
        fetcher: Fetcher,
        slots: Slots,
        attempts: Attempts,
        push: Callable[[list[ReadyRun]], bool],
    ) -> None:
        super().__init__(middleware=[])
        self.consumer = RunConsumer(fetcher, slots, attempts, push)
        dramatiq.Actor(
            self.consumer.turn,
            broker=self,
            actor_name=ACTOR,
            queue_name=QUEUE,
            priority=0,
            options={},
        )

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> RunConsumer:  # noqa: ARG002
        return self.consumer

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: dramatiq.Actor[..., Any]) -> None:
        self.emit_before("declare_actor", actor)
        self.declare_queue(actor.queue_name)
        self.actors[actor.actor_name] = actor
        self.emit_after("declare_actor", actor)

    def get_declared_queues(self) -> set[str]:
        return set(self.queues)

    def get_declared_delay_queues(self) -> set[str]:
        return set()

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        raise NotImplementedError("runs are triggered with Task.trigger, not sent to the broker")


class RunConsumer(Consumer):
    """Gives threads their turns. What is claimed waits here for a thread, and not for long."""

    def __init__(
        self,
        fetcher: Fetcher,
        slots: Slots,
        attempts: Attempts,
        push: Callable[[list[ReadyRun]], bool],
    ) -> None:
        self._fetcher = fetcher
        self._slots = slots
        self._attempts = attempts
        self._push = push
        self._claimed: deque[ClaimedRun] = deque()
        self._claimed_at = 0.0
        #: Set while nothing that is claimed waits for a thread.
        self._is_drained = threading.Event()
        self._turns = 0
        #: Held from before a claim until its slots are taken.
        self._claiming = threading.Lock()

    def drain(self) -> None:
        """Take nothing more, and wait until what was claimed is done."""
        self._fetcher.stop()
        # Once the lock is free, what was being claimed has its slots.
        with self._claiming:
            self._slots.wait_until_all_free()

    def __next__(self) -> MessageProxy | None:
        if not self._turns:
            if self._fetcher.is_stopped and not self._claimed:
                # Not with the lock held, which `drain` waits for.
                self._fetcher.wait_until_closed(WAIT_S)
            else:
                with self._claiming:
                    self._claim()
        if not self._turns:
            return None
        self._turns -= 1
        message: dramatiq.Message[Any] = dramatiq.Message(QUEUE, ACTOR, (), {}, {}, "turn", 0)
        return MessageProxy(message)

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do: a run's outcome is written by itself."""

    def nack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: a worker stops only once nothing is claimed."""

    def turn(self) -> None:
        """Execute what is claimed, on a thread that has a slot for it."""
        try:
            while True:
                try:
                    run = self._claimed.popleft()
                except IndexError:
                    return
                if not self._claimed:
                    self._is_drained.set()
                if not self._attempts.execute(run):
                    # It was given up, and its slot with it.
                    self._slots.take()
        finally:
            self._slots.release()

    def _claim(self) -> None:
        if self._claimed:
            self._give_back_stale()
            return
        runs = self._fetcher.claim(WAIT_S)
        if not runs:
            return
        self._claimed_at = time.monotonic()
        self._is_drained.clear()
        self._claimed.extend(runs)
        per_slot = self._attempts.durations.runs_per_slot
        needed = sum(1 / per_slot(run.task) for run in runs)
        # Rounded: a hundred hundredths are one.
        self._turns = min(self._slots.wait(0), math.ceil(round(needed, 3))) or 1
        self._slots.take(self._turns)

    def _give_back_stale(self) -> None:
        """Threads are busy with what takes longer than expected: others may be free."""
        waited_s = time.monotonic() - self._claimed_at
        if waited_s < STALE_S:
            self._is_drained.wait(STALE_S - waited_s)
            return
        stale: list[ClaimedRun] = []
        while self._claimed:
            stale.append(self._claimed.pop())
        if stale:
            # Else as many would be claimed again for the next slot.
            self._attempts.durations.took(stale[0].task, waited_s)
            self._push(self._fetcher.give_back(stale))
