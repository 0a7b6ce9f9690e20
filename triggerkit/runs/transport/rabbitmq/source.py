"""Takes ids of ready runs from RabbitMQ, and gives back what no slot is free for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from triggerkit.runs.transport.base import Room, Taken, TransportAway
from triggerkit.runs.transport.rabbitmq.broker import IdBroker, ids_in, queue_of
from triggerkit.runs.transport.rabbitmq.connection import WAIT_S, BrokerConnection

#: Most messages of each task that RabbitMQ gives before the first of them is acknowledged.
PREFETCH = 50

#: Seconds that ids stay with a source which does not take them: then others may have them.
HOLD_S = 0.25

#: The same while a claim of what was taken is under way.
CLAIM_S = 5.0


@dataclass(slots=True, eq=False)
class _Delivery:
    """A message in hand. `is_begun`: some of its ids are acknowledged already."""

    channel: Any
    tag: int
    ids: deque[str]
    is_begun: bool = False


class RabbitmqSource:
    """See `Source`. One connection is subscribed to the queues of all its tasks."""

    def __init__(self, broker: IdBroker, namespace: str, tasks: Sequence[str]) -> None:
        self._broker = broker
        self._queues = {task: queue_of(namespace, task) for task in tasks}
        self._connection = BrokerConnection(broker, between=self._between, lost=self._lose)
        #: Guards what follows, up to the next comment.
        self._changed = threading.Condition()
        self._held: dict[str, deque[_Delivery]] = {task: deque() for task in tasks}
        self._turns = deque(tasks)
        self._task = ""
        self._unacknowledged: list[tuple[str, _Delivery, str]] = []
        self._is_subscribed = self._is_taking = self._is_woken = False
        self._taken_at = 0.0
        self._error: TransportAway | None = None
        #: Of the connection's thread alone.
        self._channel: Any = None
        self._arrived: list[tuple[str, _Delivery]] = []
        self._is_canceled = False

    def take(self, timeout_s: float) -> Taken | None:
        """See `Source.take`. What was taken and not acknowledged before is given again."""
        with self._changed:
            self._put_back()
            self._is_taking = True
            if not self._is_subscribed:
                self._is_subscribed = True
                self._connection.submit(self._subscribe)
            self._changed.wait_for(self._is_over, min(timeout_s, WAIT_S))
            self._is_taking = False
            self._taken_at = time.monotonic()
            is_woken, self._is_woken = self._is_woken, False
            error, self._error = self._error, None
            if error is not None:
                raise error
            task = None if is_woken else self._next_task()
            if task is None:
                return None
            self._task = task
            ids = self._pop(task, 1)
            return Taken(task, ids, any(self._held.values()))

    def more(self, count: int) -> list[str]:
        """See `Source.more`."""
        with self._changed:
            return self._pop(self._task, count)

    def others(self, room: Room) -> list[Taken]:
        """See `Source.others`."""
        found: list[Taken] = []
        with self._changed:
            while room.is_left and (task := self._next_task()) is not None:
                ids = self._pop(task, room.of(task))
                room.took(task, len(ids))
                found.append(Taken(task, ids, True))
        return found

    def acknowledge(self) -> None:
        """See `Source.acknowledge`."""
        with self._changed:
            taken = list(dict.fromkeys(delivery for _, delivery, _ in self._unacknowledged))
            self._unacknowledged.clear()
            for delivery in taken:
                delivery.is_begun = True
        done = [delivery for delivery in taken if not delivery.ids]
        # That also has the connection look at what is still in hand.
        self._connection.submit(partial(_acknowledge, done))

    def wake(self) -> None:
        """See `Source.wake`."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """See `Source.close`. RabbitMQ has again what was not acknowledged."""
        self._connection.close()

    def _is_over(self) -> bool:
        return self._is_woken or self._error is not None or any(self._held.values())

    def _next_task(self) -> str | None:
        """Return the task whose turn it is, None when nothing is held."""
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            if self._held[self._turns[-1]]:
                return self._turns[-1]
        return None

    def _pop(self, task: str, count: int) -> list[str]:
        ids: list[str] = []
        held = self._held[task]
        while held and len(ids) < count:
            ids.append(held[0].ids.popleft())
            self._unacknowledged.append((task, held[0], ids[-1]))
            if not held[0].ids:
                held.popleft()
        return ids

    def _put_back(self) -> None:
        for task, delivery, run_id in reversed(self._unacknowledged):
            held = self._held[task]
            if not delivery.ids:
                held.appendleft(delivery)
            delivery.ids.appendleft(run_id)
        self._unacknowledged.clear()

    # What follows runs on the connection's thread.

    def _subscribe(self) -> None:
        self._is_canceled = False
        self._channel = self._broker.connection.channel()
        self._channel.basic_qos(prefetch_count=PREFETCH)
        self._channel.add_on_cancel_callback(self._cancel)
        for task, queue in self._queues.items():
            self._broker.waiting(queue)
            self._channel.basic_consume(queue, partial(self._deliver, task))

    def _deliver(self, task: str, channel: Any, method: Any, _: Any, body: bytes) -> None:
        delivery = _Delivery(channel, method.delivery_tag, deque(ids_in(body)))
        if delivery.ids:
            self._arrived.append((task, delivery))
        else:
            channel.basic_ack(method.delivery_tag)

    def _cancel(self, _: Any) -> None:
        self._is_canceled = True

    def _between(self) -> float:
        if self._channel is not None and (self._is_canceled or not self._channel.is_open):
            raise OSError("a queue is gone")
        with self._changed:
            for task, delivery in self._arrived:
                self._held[task].append(delivery)
            self._arrived.clear()
            if not any(self._held.values()):
                return WAIT_S
            if self._is_taking:
                self._changed.notify_all()
                return WAIT_S
            hold_s = CLAIM_S if self._unacknowledged else HOLD_S
            left_s = self._taken_at + hold_s - time.monotonic()
            if left_s > 0:
                return left_s
            given_back = self._let_go()
        self._give_back(given_back)
        return WAIT_S

    def _let_go(self) -> list[tuple[str, _Delivery]]:
        """Hold nothing any more; a later `take` subscribes again."""
        self._put_back()
        held = [(task, delivery) for task, held in self._held.items() for delivery in held]
        for deliveries in self._held.values():
            deliveries.clear()
        self._is_subscribed = False
        return held

    def _give_back(self, held: Sequence[tuple[str, _Delivery]]) -> None:
        """RabbitMQ puts whole messages to their old places; of others, the rest goes before all."""
        channel, self._channel = self._channel, None
        for task, delivery in held:
            if delivery.is_begun:
                self._broker.push(self._queues[task], list(delivery.ids), overdue=True)
                channel.basic_ack(delivery.tag)
        channel.close()

    def _lose(self, error: TransportAway) -> None:
        self._channel = None
        self._arrived.clear()
        with self._changed:
            self._let_go()
            self._error = error
            self._changed.notify_all()


def _acknowledge(done: Sequence[_Delivery]) -> None:
    for delivery in done:
        if delivery.channel.is_open:
            delivery.channel.basic_ack(delivery.tag)
