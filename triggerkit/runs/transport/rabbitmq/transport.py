"""Ready runs in RabbitMQ: a queue for each task, in the order in which they were pushed, but that
what is overdue goes before the rest."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from triggerkit.runs.run import ReadyRun
from triggerkit.runs.transport.base import Source, TransportAway, warn_away
from triggerkit.runs.transport.rabbitmq.broker import IdBroker, queue_of
from triggerkit.runs.transport.rabbitmq.connection import TIMEOUT_S, BrokerConnection, answer
from triggerkit.runs.transport.rabbitmq.source import RabbitmqSource

#: A run that stands so many seconds before one of now goes before those that do not: it was taken
#: before, by a worker that died, or lost, or it has a priority.
OVERDUE_S = 2.0


class RabbitmqTransport:
    """See `Transport`. `namespace` keeps installations on one RabbitMQ apart."""

    def __init__(self, url: str, namespace: str) -> None:
        self._broker = IdBroker(url)
        self._namespace = namespace
        self._connection = BrokerConnection(self._broker)
        self._pushes = _Pushes(self._broker, namespace, self._connection)

    def push(self, runs: Iterable[ReadyRun]) -> bool:
        """See `Transport.push`."""
        pushed = self._pushes.submit(runs)
        try:
            if pushed is not None:
                answer(pushed)
        except TransportAway as error:
            warn_away("RabbitMQ", error)
            return False
        return True

    def first_ranks(self, tasks: Sequence[str]) -> Mapping[str, float]:
        """See `Transport.first_ranks`. RabbitMQ tells no more than whether it has any.

        So what a push left out that failed midway is found when the queue is empty.
        """
        queues = [queue_of(self._namespace, task) for task in tasks]
        waiting = self._connection.call(lambda: [*map(self._broker.waiting, queues)])
        return {
            task: -math.inf if is_any else math.inf
            for task, is_any in zip(tasks, waiting, strict=True)
        }

    def source(self, tasks: Sequence[str]) -> Source:
        """See `Transport.source`."""
        return RabbitmqSource(self._broker, self._namespace, tasks)

    def close(self) -> None:
        """See `Transport.close`."""
        self._connection.close()


class AsyncRabbitmqTransport:
    """See `AsyncTransport`."""

    name = "rabbitmq"

    def __init__(self, url: str, namespace: str) -> None:
        self._broker = IdBroker(url)
        self._connection = BrokerConnection(self._broker)
        self._pushes = _Pushes(self._broker, namespace, self._connection)

    async def push(self, runs: Iterable[ReadyRun]) -> bool:
        """See `AsyncTransport.push`."""
        pushed = self._pushes.submit(runs)
        try:
            if pushed is not None:
                await _answer(pushed)
        except TransportAway as error:
            warn_away("RabbitMQ", error)
            return False
        return True

    async def check(self) -> None:
        """See `AsyncTransport.check`."""
        await _answer(self._connection.submit(self._ask))

    async def close(self) -> None:
        """See `AsyncTransport.close`."""
        await asyncio.to_thread(self._connection.close)

    def _ask(self) -> None:
        self._broker.channel.basic_qos(prefetch_count=1)


class _Pushes:
    """Pushes of ids: those that come while one is under way go together after it."""

    def __init__(self, broker: IdBroker, namespace: str, connection: BrokerConnection) -> None:
        self._broker = broker
        self._namespace = namespace
        self._connection = connection
        self._lock = threading.Lock()
        self._waiting: list[ReadyRun] = []
        self._next: Future[None] | None = None

    def submit(self, runs: Iterable[ReadyRun]) -> Future[None] | None:
        """Have `runs` pushed; None when there are none."""
        with self._lock:
            if self._next is not None and self._next.done():
                # There was no connection: these were not pushed, and those who waited know.
                self._waiting, self._next = [], None
            self._waiting.extend(runs)
            if self._waiting and self._next is None:
                self._next = self._connection.submit(self._push)
            return self._next

    def _push(self) -> None:
        with self._lock:
            runs, self._waiting, self._next = self._waiting, [], None
        overdue_rank = (time.time() - OVERDUE_S) * 1_000_000
        parts: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
        for task, run_id, rank in sorted(runs, key=lambda run: run.rank):
            parts[task, rank < overdue_rank].append(run_id)
        for (task, is_overdue), ids in parts.items():
            self._broker.push(queue_of(self._namespace, task), ids, overdue=is_overdue)


async def _answer(future: Future[None]) -> None:
    # Shielded, since others may wait for the same.
    try:
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), TIMEOUT_S)
    except TimeoutError:
        raise TransportAway(f"no answer for {TIMEOUT_S:.0f} s") from None
