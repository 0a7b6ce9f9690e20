"""What a source holds of RabbitMQ's messages: given back when it takes nothing, never kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from secrets import token_hex
from typing import Any

import dramatiq
import pytest

from tests.rabbitmq import RabbitmqServer
from triggerkit.runs.run import ReadyRun, new_run_id
from triggerkit.runs.transport.base import Source, Taken, TransportAway
from triggerkit.runs.transport.rabbitmq.broker import IdBroker, ids_in, queue_of
from triggerkit.runs.transport.rabbitmq.source import PREFETCH
from triggerkit.runs.transport.rabbitmq.transport import RabbitmqTransport

SOON_S = 30.0

#: So many that each message of the push carries several.
SEVERAL = 200


class Hand:
    """A transport, its sources and a look at the queue behind it."""

    def __init__(self, server: RabbitmqServer) -> None:
        self.namespace = token_hex(8)
        self.transport = RabbitmqTransport(server.url, self.namespace)
        self.queue = queue_of(self.namespace, "work")
        self.broker = IdBroker(server.url)
        self._sources: list[Source] = []

    def source(self) -> Source:
        self._sources.append(self.transport.source(["work"]))
        return self._sources[-1]

    def push(self, count: int) -> list[str]:
        ids = [new_run_id() for _ in range(count)]
        assert self.transport.push([ReadyRun("work", run_id, n) for n, run_id in enumerate(ids)])
        return ids

    def send(self, body: bytes) -> None:
        """Put a message of any kind into the queue."""
        self.broker.declare_queue(self.queue, ensure=True)
        self.broker.channel.basic_publish("", self.queue, body)

    def waiting(self) -> int:
        """How many messages are with no source."""
        return self.broker.waiting(self.queue)

    def close(self) -> None:
        for source in self._sources:
            source.close()
        self.transport.close()
        self.broker.close()


@pytest.fixture
def hand(rabbitmq_server: RabbitmqServer) -> Iterator[Hand]:
    hand = Hand(rabbitmq_server)
    yield hand
    hand.close()


def until(condition: Callable[[], Any], seconds: float = SOON_S) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return seen


def take(source: Source) -> Taken:
    def taken() -> Taken | None:
        with suppress(TransportAway):
            return source.take(1.0)
        return None

    found: Taken = until(taken)
    return found


def taken(source: Source, count: int) -> list[str]:
    """So many ids that are not acknowledged, which may come by several messages."""
    ids = [*take(source).ids]

    def is_all() -> bool:
        ids.extend(source.more(count - len(ids)))
        return len(ids) >= count

    until(is_all)
    return ids


def drained(source: Source, count: int) -> list[str]:
    """So many ids, each acknowledged."""
    ids: list[str] = []
    while len(ids) < count:
        ids += [*take(source).ids, *source.more(100)]
        source.acknowledge()
    return ids


def test_what_was_taken_and_not_acknowledged_is_given_again(hand: Hand) -> None:
    ids = hand.push(SEVERAL)
    source = hand.source()
    first, again = taken(source, 50), taken(source, 50)
    assert first == again == ids[:50]
    source.acknowledge()
    assert drained(source, 150) == ids[50:]


def test_what_a_source_had_not_acknowledged_is_another_ones(hand: Hand) -> None:
    ids = hand.push(5)
    source, other = hand.source(), hand.source()
    assert take(source).ids == ids[:1]
    source.acknowledge()
    assert take(source).ids == ids[1:2]
    source.close()
    assert drained(other, 4) == ids[1:]
    assert hand.transport.first_ranks(["work"])["work"] == math.inf


def test_a_source_that_takes_nothing_more_gives_back_what_it_holds(hand: Hand) -> None:
    ids = hand.push(20)
    busy, free = hand.source(), hand.source()
    assert take(busy).ids == ids[:1]
    busy.acknowledge()
    # In its old order, and with nothing done by the busy one.
    assert drained(free, 19) == ids[1:]


def test_what_comes_to_a_source_that_takes_nothing_is_another_ones(hand: Hand) -> None:
    ids = hand.push(1)
    busy, free = hand.source(), hand.source()
    assert take(busy).ids == ids
    busy.acknowledge()
    later = hand.push(10)
    assert sorted(drained(free, 10)) == sorted(later)
    assert take_none(busy)


def take_none(source: Source) -> bool:
    return source.take(0.1) is None


def test_of_a_message_that_is_begun_only_the_rest_is_given_back(hand: Hand) -> None:
    ids = hand.push(SEVERAL)
    busy, free = hand.source(), hand.source()
    begun = [*take(busy).ids, *busy.more(4)]
    busy.acknowledge()
    assert begun == ids[:5]
    assert sorted(drained(free, SEVERAL - 5)) == sorted(ids[5:])
    assert take_none(free)


def test_a_source_takes_again_after_it_gave_back(hand: Hand) -> None:
    source = hand.source()
    ids = hand.push(20)
    found = take(source).ids
    source.acknowledge()
    until(lambda: hand.waiting() == 19)
    assert found + drained(source, 19) == ids
    until(lambda: hand.waiting() == 0)


def test_no_more_is_fetched_than_a_source_may_hold(hand: Hand) -> None:
    source = hand.source()
    for _ in range(5):
        hand.push(20)
    take(source)
    assert hand.waiting() == 100 - PREFETCH


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"args": 1}',
        dramatiq.Message("q", "run", (), {}, {}).encode(),
        dramatiq.Message("q", "run", ("run_1",), {}, {}).encode(),
        dramatiq.Message("q", "run", ([1, None],), {}, {}).encode(),
        dramatiq.Message("q", "run", ([], []), {}, {}).encode(),
    ],
)
def test_messages_that_are_none_of_ours_are_dropped(hand: Hand, body: bytes) -> None:
    assert ids_in(body) == []
    hand.send(body)
    ids = hand.push(1)
    source = hand.source()
    assert take(source).ids == ids
    source.acknowledge()
    source.close()
    until(lambda: hand.waiting() == 0)


def test_what_is_overdue_goes_first(hand: Hand) -> None:
    now = time.time_ns() // 1000
    runs = [ReadyRun("work", new_run_id(), now) for _ in range(30)]
    assert hand.transport.push(runs)
    overdue = hand.push(3)
    assert drained(hand.source(), 3)[:3] == overdue


def test_a_queue_that_is_deleted_is_made_again(hand: Hand) -> None:
    source = hand.source()
    ids = hand.push(1)
    assert drained(source, 1) == ids
    hand.broker.channel.queue_delete(hand.queue)
    ids = hand.push(1)
    assert take(source).ids == ids


def test_a_server_that_is_killed_keeps_what_was_pushed(
    hand: Hand, rabbitmq_server: RabbitmqServer
) -> None:
    ids = hand.push(30)
    with rabbitmq_server.away(force=True):
        pass
    assert drained(hand.source(), 30) == ids


def test_the_messages_are_dramatiqs(hand: Hand) -> None:
    ids = hand.push(3)
    consumer = hand.broker.consume(hand.queue, timeout=5000)
    message = next(consumer)
    assert message is not None
    assert (message.actor_name, message.queue_name) == ("run", hand.queue)
    assert list(message.args) == [ids[:1]]
    consumer.close()
