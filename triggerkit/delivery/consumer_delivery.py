"""Deliver one consumer: what its lanes and its retries share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic

from triggerkit.consumers.calls.functions import Functions, Outcome
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.parked.message import Head, ParkedMessage, Tried
from triggerkit.consumers.selection import WANTED, Selection
from triggerkit.consumers.shared_parts import Parts, parts_of
from triggerkit.delivery.batch import Batch
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.events.bodies import EventBodies
from triggerkit.delivery.events.parked_entry import parked_entry
from triggerkit.delivery.isolation import Health
from triggerkit.delivery.kafka.way import LONGEST_PAUSE_S, KafkaWay
from triggerkit.delivery.push import Answer, Push, Pusher
from triggerkit.delivery.slots import PushSlots
from triggerkit.delivery.tunnel.way import TunnelWay, first_of, place_of, place_of_parked
from triggerkit.delivery.turns import Barrier, Settle, Turns
from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import Entry
from triggerkit.log.reader import LogReader
from triggerkit.state.backoff import backoff_s

#: Tells of each push that was taken; those that were not are told with what comes next.
pushes = logging.getLogger("triggerkit.pushes")

#: What a consumer's endpoint knows a push by.
CredentialsFor = Callable[[Consumer], Credentials]


class ConsumerDelivery:
    """One consumer being delivered.

    A key in `parked_keys` has a parked message, behind which its later ones are parked too. It may
    hold keys that have none any more: their next message takes the way by the store, in order all
    the same. `parking` is held from before a parked message is stored or removed until
    `parked_keys` says so: a key must not be let go while its lane parks another message of it.
    """

    def __init__(
        self,
        consumer: Consumer,
        reader: LogReader,
        store: CursorStore,
        pusher: Pusher,
        credentials_for: CredentialsFor,
        direct: DirectWay,
        kafka: KafkaWay | None = None,
        tunnels: TunnelWay | None = None,
        parts_of: Callable[[Entry], Parts] = parts_of,
    ) -> None:
        self.consumer = consumer
        self._parts_of = parts_of
        self.selection = Selection(consumer, parts_of)
        self.functions = _functions_of(consumer)
        self.reader = reader
        self.followed = reader.follow(consumer.subjects)
        #: Of each lane, which enters its own.
        self.settles: list[Settle] = []
        self.store = store
        self.parked_keys: set[str] = set()
        self.parking = asyncio.Lock()
        #: Keys of which a parked message is being sent.
        self.retried_keys: set[str] = set()
        #: Set when there may be something to be tried again.
        self.retry = asyncio.Event()
        #: Whether a retry waits until a lane's batch is done.
        self.is_awaited = False
        #: Whether nothing more is to be sent.
        self.is_draining = False
        self.barrier = Barrier(self.settles, store.elsewhere(consumer.id))
        self.health = Health()
        self.turns = Turns()
        self.slots = PushSlots(consumer.definition.concurrency)
        self._pusher = pusher
        self._credentials_for = credentials_for
        self._direct = direct
        self._kafka = kafka
        self._events = EventBodies(reader, consumer.database_id)
        self._tunnels = tunnels
        self._changed = asyncio.Event()

    @property
    def needs_code(self) -> bool:
        """Whether it needs code of the project: functions, or a task."""
        return self.selection.leaves_calls or self.has_own_way

    @property
    def has_own_way(self) -> bool:
        """Whether its messages go without a push: they become runs, or events in Kafka."""
        return self.consumer.definition.has_own_way

    async def start(self) -> None:
        """Load the code that the consumer needs, if any.

        Raises:
            ConfigurationError: it cannot be.
        """
        if self.consumer.definition.is_direct:
            await self._direct.require(self._task)
        if self.consumer.definition.is_kafka:
            await self._into_kafka.require()
        if self.selection.leaves_calls:
            await self.functions.start()

    def drain(self) -> bool:
        """Have lanes and retries send nothing more; return whether a retry is under way."""
        self.is_draining = True
        self._changed.set()
        self.retry.set()
        return bool(self.retried_keys)

    async def end(self) -> None:
        """End what was started, at once."""
        self.reader.unfollow(self.followed)
        await self.functions.end()

    async def outcomes(self, selection: Selection, entries: Sequence[Entry]) -> dict[int, Outcome]:
        """Return what the functions make of those of `entries` that the consumer may get, or the
        events that are sent of them, by position."""
        asked = [entry for entry in entries if selection.wants(entry) == WANTED]
        made: dict[int, Outcome] = {entry.position: b"" for entry in asked}
        if selection.leaves_calls:
            called = await self.functions.call([selection.message(entry) for entry in asked])
            made = dict(zip(made, called, strict=True))
        if selection.sends_events:
            wanted = {position for position, one in made.items() if isinstance(one, bytes)}
            made |= await self._events.of(entries, wanted)
        return made

    async def outcome(self, head: Head, message: bytes) -> Outcome:
        """Return what is sent for a message that was parked, as the consumer is now; None when it
        is not wanted any more."""
        selection = self.selection
        verdict = selection.passes(message)
        if not verdict.is_wanted or verdict.fault is not None:
            return verdict.fault
        outcome: Outcome = message
        if selection.leaves_calls:
            (outcome,) = await self.functions.call([message])
        if selection.sends_events and isinstance(outcome, bytes):
            return await self._events.of_parked(head, message)
        return outcome

    async def use(self, consumer: Consumer) -> None:
        """Go on with a changed definition or endpoint: what waits to be sent again goes at once.

        Raises:
            ConfigurationError: a function of the consumer cannot be loaded; nothing was changed.
        """
        if consumer == self.consumer:
            return
        functions = None
        if _names(consumer) != _names(self.consumer):
            functions = _functions_of(consumer)
            await functions.start()
        before = self.consumer
        # What came before the edit was for the consumer as it was.
        for settle in self.settles:
            settle()
        self.reader.refollow(self.followed, consumer.subjects)
        self.selection = Selection(consumer, self._parts_of)
        self.consumer = consumer
        self.slots.limit = consumer.definition.concurrency
        if (consumer.target, consumer.definition) != (before.target, before.definition):
            self._changed.set()
            self._changed = asyncio.Event()
        if functions is not None:
            functions, self.functions = self.functions, functions
            await functions.close()

    @property
    def _task(self) -> str:
        task = self.consumer.definition.task
        assert task is not None
        return task

    async def clear_for(self, truncate: Entry) -> None:
        """Return once nothing of the table that is before `truncate` can be sent any more: what is
        parked of it is superseded."""
        await self.barrier.arrived(truncate)
        async with self.parking:
            keys, free = await self.store.parked.supersede(self.consumer.id, truncate)
            self.parked_keys -= free
        self.retry.set()
        # What is being sent at this moment was sent before.
        await self.barrier.until(lambda: self.retried_keys.isdisjoint(keys))

    @property
    def _into_kafka(self) -> KafkaWay:
        if self._kafka is None:
            raise ConfigurationError("this process does not write into Kafka")
        return self._kafka

    async def push(self, batch: Batch, body: bytes, attempt: int) -> Answer:
        """Make one attempt at the endpoint as it is now; the caller holds a slot. By an own way, it
        is only read: its runs are made, or its events written, when it is recorded.

        Raises:
            ConfigurationError: the project's tasks had to be loaded anew, and cannot be any more.
        """
        if self.consumer.definition.is_kafka:
            return await self._into_kafka.take(batch.entries)
        place = place_of(self.consumer, batch.entries[0])
        return await self._push(body, batch.id, attempt, len(batch.entries), place)

    async def push_parked(self, head: Head, message: bytes, body: bytes, batch_id: str) -> Answer:
        """Make one attempt as `push` does, with a parked message alone: `body` is sent of it."""
        if self.consumer.definition.is_kafka:
            entry = await parked_entry(self.reader, head, message)
            return await self._into_kafka.take([entry])
        return await self._push(body, batch_id, head.attempts, 1, place_of_parked(head))

    async def until_open(self, waits: Callable[[], None] | None = None) -> bool:
        """Return once a push can be tried: at a local endpoint, once a tunnel to it is open. What
        waits here is no attempt, and `waits` is called; False when nothing more is to be sent."""
        while not self.is_draining:
            tunnels = self._way_there
            if tunnels is None or tunnels.is_open(self.consumer.target):
                break
            if waits is not None:
                waits()
            await first_of(self.changes())
        return not self.is_draining

    @property
    def _way_there(self) -> TunnelWay | None:
        """The tunnels, where the endpoint is a local one."""
        target = self.consumer.target
        return self._tunnels if target is not None and target.local else None

    async def _push(
        self, body: bytes, batch_id: str, attempt: int, items: int, place: int
    ) -> Answer:
        if self.consumer.definition.is_direct:
            return await self._direct.code.read(self._task, body, batch_id)
        target = self.consumer.target
        assert target is not None
        since = monotonic()
        push = Push(
            url=target.url,
            body=body,
            batch_id=batch_id,
            attempt=attempt,
            timeout_s=self.consumer.definition.timeout_s,
            credentials=self._credentials_for(self.consumer),
        )
        if (tunnels := self._way_there) is not None:
            answer = await tunnels.send(target.id, push, place)
        else:
            answer = await self._pusher.send(push)
        if answer.verdict == "delivered" and pushes.isEnabledFor(logging.DEBUG):
            _tell(self.consumer.name, target.url, answer, items, (monotonic() - since) * 1000)
        return answer

    async def record(
        self,
        cursor: Cursor,
        outcome: AttemptOutcome,
        answer: Answer,
        parked: Sequence[ParkedMessage] = (),
    ) -> Cursor:
        """Note an attempt's outcome, what is parked, the cursor's move, and make the runs of
        `answer`: all at once; or write its events before.

        Raises:
            CursorMoved: the cursor is another by now; nothing of this was done.
            NotMade: the runs could not be made, or the events not written; nothing was noted.
        """
        if answer.runs:
            return await self._direct.move(self.consumer, cursor, outcome, answer.runs, parked)
        if answer.events:
            return await self._into_kafka.move(
                self.store, self.consumer, cursor, outcome, answer.events, parked
            )
        return await self.store.record_attempt(self.consumer, cursor, outcome, parked)

    async def record_retry(self, head: Head, tried: Tried, answer: Answer | None = None) -> bool:
        """Note the outcome of a retry, and make the runs of `answer`, all at once, or write its
        events before; whether the key still has a message in the way of its later ones.

        Raises:
            NotMade: the runs could not be made, or the events not written; nothing was noted.
        """
        if answer is not None and answer.runs:
            return await self._direct.finish(self.consumer, head, tried, answer.runs)
        if answer is not None and answer.events:
            return await self._into_kafka.finish(
                self.store, self.consumer, head, tried, answer.events
            )
        return (await self.store.parked.record_retry(self.consumer.id, head, tried)).has_more

    def wait_s(self, attempt: int, answer: Answer, *, is_repeated: bool) -> float:
        """Return the seconds before a batch is sent again, after `attempt`."""
        wait_s = backoff_s(attempt, answer.retry_after_s, is_repeated=is_repeated)
        return min(wait_s, LONGEST_PAUSE_S) if self.consumer.definition.is_kafka else wait_s

    def changes(self) -> list[asyncio.Event]:
        """Return what is set once the endpoint or the definition is another, or a tunnel: asked
        for before a push, what happens while it is under way ends the wait after it, too."""
        tunnels = self._way_there
        return [self._changed] if tunnels is None else [self._changed, tunnels.moved]

    @property
    def openings(self) -> int:
        """How often a command has opened a tunnel to the endpoint, if it is a local one."""
        tunnels, target = self._way_there, self.consumer.target
        return 0 if tunnels is None or target is None else tunnels.openings(target.id)


def _names(consumer: Consumer) -> tuple[str | None, str | None]:
    return consumer.definition.filter, consumer.definition.transform


def _functions_of(consumer: Consumer) -> Functions:
    return Functions(*_names(consumer))


def _tell(consumer: str, url: str, answer: Answer, items: int, ms: float) -> None:
    facts = {
        "event": "push",
        "consumer": consumer,
        # A query may be a secret.
        "url": url.partition("?")[0],
        "status": answer.status,
        "ms": round(ms, 1),
        "items": items,
        "failed_items": len(answer.failed),
    }
    pushes.debug("%s: %d messages", consumer, items, extra={"facts": facts})
