"""The way into Kafka: the cursor moves past a batch once the broker has its events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from time import monotonic
from typing import Final, TypeVar

from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.parked.message import Head, ParkedMessage, Tried
from triggerkit.delivery.direct.way import END_S, NotMade
from triggerkit.delivery.push import Answer
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import Event, EventRenderer
from triggerkit.events.kafka.broker import Broker, BrokerTopic
from triggerkit.events.kafka.client import TOGETHER_BYTES
from triggerkit.events.kafka.faults import (
    KEYLESS,
    NOT_VALID,
    TOO_LARGE,
    KafkaFault,
    said,
)
from triggerkit.events.kafka.limits import judged, together_bytes, too_large
from triggerkit.events.kafka.producer import EventProducer
from triggerkit.events.kafka.record import Record, records_of
from triggerkit.events.old_rows import lacks_row, old_rows
from triggerkit.events.topics import Topic, topics
from triggerkit.failpoints import reach
from triggerkit.log.entry import Entry
from triggerkit.settings import Settings

#: Seconds that one attempt waits for the broker: the first tells soon, and later ones, for which
#: the client has the same records still, are not many.
FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 30.0

#: Seconds between two attempts at most: what was mended is found by then.
LONGEST_PAUSE_S: Final = 5.0

#: Seconds that what the state says of the topics holds.
KNOWN_S: Final = 15.0

T = TypeVar("T")


class KafkaWay:
    """Writes the events of one database. What it needs is opened when its consumer starts."""

    def __init__(self, settings: Settings, states: AsyncConnectionPool, database_id: int) -> None:
        self._settings = settings.kafka
        self._states = states
        self._database_id = database_id
        self._topics: dict[tuple[str, str], Topic] = {}
        self._renderer = EventRenderer(())
        self._tombstoned: frozenset[str] = frozenset()
        self._read_at = 0.0
        #: The topics as the broker had them last.
        self._there: dict[str, BrokerTopic] = {}
        self._producer: EventProducer | None = None
        self._broker: Broker | None = None

    async def require(self) -> None:
        """Make the clients; whether the broker is reached is seen by the first batch.

        Raises:
            ConfigurationError: bootstrap servers are not set, or a setting is wrong.
        """
        if not self._settings:
            raise ConfigurationError(
                "KAFKA_BOOTSTRAP_SERVERS is not set for the stream; set it as it was for `apply`, "
                "or run `triggerkit apply` without it"
            )
        await self._read_topics()
        if self._producer is None:
            broker, producer = Broker(self._settings), EventProducer(self._settings)
            producer.open()
            self._broker, self._producer = broker, producer

    async def take(self, entries: Sequence[Entry]) -> Answer:
        """Make the events of a batch: the answer has them, of which nothing is written yet.

        A batch with a message that its topic does not take is refused as a whole, and so is one
        with a message of which only the broker can say: alone, it is taken.
        """
        assert self._broker is not None
        tables = {(entry.schema, entry.table) for entry in entries}
        if not tables <= self._topics.keys() or monotonic() - self._read_at > KNOWN_S:
            await self._read_topics()
        if not tables <= self._topics.keys():
            entries = [entry for entry in entries if (entry.schema, entry.table) in self._topics]
        used = {self._topics[table] for table in tables & self._topics.keys()}
        try:
            there = await self._broker.require(used)
        except KafkaFault as fault:
            return Answer("endpoint_failed", None, str(fault))
        events = await self._events(entries)
        records, is_compressed = list(records_of(events)), self._opened.is_compressing
        fit, why = judged(records, there, is_compressed=is_compressed)
        if fit == "no":
            # It may take more by now.
            self._broker.forget({topic.name for topic in used})
            try:
                there = await self._broker.require(used)
            except KafkaFault as fault:
                return Answer("endpoint_failed", None, str(fault))
            fit, why = judged(records, there, is_compressed=is_compressed)
        # One that the broker may refuse goes alone: no later one of its key is on its way.
        if fit == "no" or (fit == "maybe" and len(events) > 1):
            return Answer("content_refused", 422 if KEYLESS in (why or "") else 413, why)
        self._there.update(there)
        limits = [topic.max_message_bytes for topic in self._there.values()]
        self._opened.together_bytes = together_bytes(min(limits, default=TOGETHER_BYTES))
        return Answer("delivered", 200, events=tuple(events))

    async def move(
        self,
        store: CursorStore,
        consumer: Consumer,
        cursor: Cursor,
        outcome: AttemptOutcome,
        events: Sequence[Event],
        parked: Sequence[ParkedMessage],
    ) -> Cursor:
        """Write `events`, and move the cursor past them once the broker has them all.

        Raises:
            CursorMoved: the cursor is another by now; the events were written all the same.
            NotMade: the broker does not have them all; those it has are not written again.
        """

        async def move() -> Cursor:
            line = (consumer.id, consumer.replay_epoch, cursor.partition)
            await self._write(line, events, outcome.attempt)
            reach("produced-before-cursor")
            return await store.record_attempt(consumer, cursor, outcome, parked)

        return await _to_its_end(move())

    async def finish(
        self,
        store: CursorStore,
        consumer: Consumer,
        head: Head,
        tried: Tried,
        events: Sequence[Event],
    ) -> bool:
        """Write the event of a parked message and be done with the message. Returns whether its
        key still has one in the way.

        Raises:
            NotMade: the broker does not have it.
        """

        async def finish() -> bool:
            line = (consumer.id, consumer.replay_epoch, "parked", head.key)
            await self._write(line, events, head.attempts)
            return (await store.parked.record_retry(consumer.id, head, tried)).has_more

        return await _to_its_end(finish())

    async def close(self) -> None:
        """Let go of the clients; what the broker does not have yet is written after the next
        start."""
        if self._producer is not None:
            await self._producer.close()

    async def _events(self, entries: Sequence[Entry]) -> list[Event]:
        wanted = {e.position for e in entries if lacks_row(e, self._topics[e.schema, e.table])}
        old = await self._old_rows(entries, wanted) if wanted else {}
        event = self._renderer.event
        return [event(entry, old.get(entry.position)) for entry in entries]

    async def _old_rows(
        self, entries: Sequence[Entry], wanted: Collection[int]
    ) -> dict[int, bytes]:
        async with self._states.connection() as connection:
            return await old_rows(connection, self._database_id, entries, wanted)

    @property
    def _opened(self) -> EventProducer:
        assert self._producer is not None
        return self._producer

    async def _write(self, line: tuple[object, ...], events: Sequence[Event], attempt: int) -> None:
        records: list[Record] = list(records_of(events, self._tombstoned))
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 10))
        try:
            await self._opened.send(line, records, wait_s, are_apart=len(events) == 1)
        except KafkaFault as fault:
            if self._broker is not None:
                # It may have been deleted, or be another by now.
                self._broker.forget({event.topic for event in events})
            raise NotMade(self._answer_to(str(fault), records)) from fault

    def _answer_to(self, text: str, records: Sequence[Record]) -> Answer:
        if TOO_LARGE in text:
            return Answer("content_refused", 413, self._refused(records) or text)
        if NOT_VALID in text and all(record.key is None for record in records):
            return Answer("content_refused", 422, said(KEYLESS, "", records[0].topic))
        return Answer("endpoint_failed", None, text)

    def _refused(self, records: Sequence[Record]) -> str | None:
        """Return what is to be said of one event that the broker refused for its size."""
        topic = self._there.get(records[0].topic)
        if topic is None or len({record.offset for record in records}) > 1:
            return None
        return too_large(records[0], topic, "bytes before it is compressed")

    async def _read_topics(self) -> None:
        async with self._states.connection() as connection:
            found = await topics(connection, self._database_id)
        self._read_at = monotonic()
        self._topics = {(topic.schema, topic.table): topic for topic in found}
        self._renderer = EventRenderer(found)
        self._tombstoned = frozenset(topic.name for topic in found if topic.tombstones)


async def _to_its_end(work: Awaitable[T]) -> T:
    """Return what `work` does; where its caller is canceled, it is waited for a while."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # What the broker has, and no cursor is past, would be written twice.
        await asyncio.wait({task}, timeout=END_S)
        if not task.cancel() and not task.cancelled():
            # Whatever it was, nobody asks any more.
            task.exception()
        raise
