"""The Dramatiq broker: takes run ids from Redis, claims the runs in Postgres, hands them out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dramatiq
import psycopg
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionError as BrokerConnectionError

from triggerkit.runs.claim import RunClaims
from triggerkit.runs.queue import queue_key
from triggerkit.runs.run import ClaimedRun

logger = logging.getLogger(__name__)

#: The one queue Dramatiq sees; the runs' own queues are lists in Redis.
DRAMATIQ_QUEUE = "runs"

#: Seconds one blocking wait on Redis lasts; longer only delays a stop.
WAIT_S = 1.0


class RunBroker(dramatiq.Broker):
    """Consumes runs. Nothing is enqueued through it: `.trigger()` accepts runs in Postgres."""

    def __init__(
        self,
        client: redis.Redis,
        open_claims: Callable[[], RunClaims],
        queues: Sequence[str],
        *,
        namespace: str,
        slots: int,
        middleware: list[dramatiq.Middleware],
    ) -> None:
        super().__init__(middleware=middleware)
        self.client = client
        self.open_claims = open_claims
        self.keys = [queue_key(namespace, queue) for queue in queues]
        self.slots = threading.Semaphore(slots)
        self.draining = threading.Event()
        self.stopped = threading.Event()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> RunConsumer:  # noqa: ARG002
        try:
            return RunConsumer(self)
        except psycopg.OperationalError as error:
            raise BrokerConnectionError(str(error)) from error

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

    def close(self) -> None:
        self.stopped.set()
        self.client.close()


class RunConsumer(Consumer):
    """Claims no more runs than there are free slots; a claimed run's slot is freed by its ack."""

    def __init__(self, broker: RunBroker) -> None:
        self._broker = broker
        self._claims = broker.open_claims()
        self._claimed: deque[ClaimedRun] = deque()
        self._turn = 0

    def __next__(self) -> MessageProxy | None:
        if not self._claimed:
            self._claim()
        return _message(self._claimed.popleft()) if self._claimed else None

    def ack(self, message: MessageProxy) -> None:  # noqa: ARG002
        self._broker.slots.release()

    def nack(self, message: MessageProxy) -> None:
        self.ack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: what was claimed and not executed goes back with the worker's lease."""

    def close(self) -> None:
        _release(self._broker.slots, len(self._claimed))

    def _claim(self) -> None:
        broker = self._broker
        if broker.draining.is_set():
            broker.stopped.wait(WAIT_S)
            return
        if not broker.slots.acquire(timeout=WAIT_S):
            return
        reserved = 1
        try:
            ids, reserved = self._take()
            self._claimed.extend(self._claims.claim(ids) if ids else ())
        except (redis.RedisError, psycopg.OperationalError) as error:
            # Ids that were taken and not claimed are still queued in Postgres: the keeper pushes
            # them again.
            raise BrokerConnectionError(str(error)) from error
        finally:
            _release(broker.slots, reserved - len(self._claimed))

    def _take(self) -> tuple[list[str], int]:
        """Wait for a run id, and take as many more from its queue as there are free slots."""
        broker = self._broker
        # Redis looks at the lists in the order given: turn it, so that each queue comes first.
        self._turn = (self._turn + 1) % len(broker.keys)
        keys = broker.keys[self._turn :] + broker.keys[: self._turn]
        popped = broker.client.blpop(keys, timeout=WAIT_S)
        if popped is None:
            return [], 1
        key, first = popped
        more = 0
        while broker.slots.acquire(blocking=False):
            more += 1
        rest = broker.client.lpop(key, more) if more else None
        ids = [first, *(rest or ())]
        return ids, 1 + more


def _release(slots: threading.Semaphore, count: int) -> None:
    if count > 0:
        slots.release(count)


def _message(run: ClaimedRun) -> MessageProxy:
    # The run itself travels with the message: it is never encoded, as nothing is enqueued.
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=DRAMATIQ_QUEUE, actor_name=run.task, args=(run,), kwargs={}, options={}
    )
    return MessageProxy(message)
