"""Fetch by offset, and consume by group: read, and wait for what is not there yet."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import AsyncConnection
from starlette.requests import Request

from triggerkit.events.event import Event
from triggerkit.events.groups.service import Consuming, Groups, Turn
from triggerkit.events.topic_log import TopicLog, TopicPartition
from triggerkit.state.connect import Pool
from triggerkit.web.kafka.basic import Caller
from triggerkit.web.kafka.given import Fetch, Invalid
from triggerkit.web.kafka.waiting import LOOK_S, Waiting

#: Places between which fetched topics are known to have nothing, at most.
MOST_EMPTY = 10_000


class Empty:
    """Remembers from where to where a partition has nothing of its topic.

    Who fetches by offset cannot go on without a message: else each fetch would look through all
    that others wrote since the last one.
    """

    def __init__(self) -> None:
        self._known: dict[TopicPartition, tuple[int, int]] = {}

    def after(self, key: TopicPartition, offset: int) -> int:
        """Return from where on to look."""
        first, end = self._known.get(key, (0, 0))
        return end if first <= offset < end else offset

    def note(self, key: TopicPartition, first: int, end: int) -> None:
        """Note that there is nothing from `first` to before `end`."""
        known, before = self._known.pop(key, (first, first))
        self._known[key] = (known if known <= first <= before else first, end)
        if len(self._known) > MOST_EMPTY:
            del self._known[next(iter(self._known))]


class Reading:
    """What requests for messages do."""

    def __init__(self, pool: Pool, dsn: str, waiting: Waiting, groups: Groups) -> None:
        self._pool = pool
        self._dsn = dsn
        self._waiting = waiting
        self._groups = groups
        self._empty = Empty()

    async def fetch(self, request: Request, caller: Caller, given: Fetch) -> list[Event]:
        """Return the messages from the given offsets on, waiting for the first.

        Raises:
            UnknownTopic, OffsetOutOfRange: see `TopicLog.require`.
            Invalid: a partition is named twice.
        """
        async with self._pool.connection() as connection:
            log = await TopicLog.look(connection)
            offsets = _offsets(log, given)
            events = await self._fetched(connection, log, offsets)
        if events or given.timeout == 0:
            return events
        names = database_names(log, offsets)
        async with self._waiting.of(request, self._dsn, names, given.timeout) as wait:
            while True:
                is_due = wait.listen()
                async with self._pool.connection() as connection:
                    if is_due:
                        await caller.require(connection)
                        wait.look_after(LOOK_S)
                    log = await TopicLog.look(connection)
                    for topic, _ in offsets:
                        log.topic(topic)
                    events = await self._fetched(connection, log, offsets)
                if events or wait.is_over:
                    return events
                await wait.news()

    async def _fetched(
        self, connection: AsyncConnection, log: TopicLog, offsets: dict[TopicPartition, int]
    ) -> list[Event]:
        wanted = {key: self._empty.after(key, offset) for key, offset in offsets.items()}
        read = await log.read(connection, wanted)
        if not read.events:
            for key, end in read.following.items():
                self._empty.note(key, wanted[key], end)
        return read.events

    async def consume(
        self, request: Request, caller: Caller, consuming: Consuming, timeout_ms: int
    ) -> list[Event]:
        """Return messages for an instance of a group, waiting for the first.

        Raises:
            UnknownTopic, Superseded, NoOffset: see `Groups.begin`.
        """
        async with self._pool.connection() as connection:
            turn = await self._groups.begin(connection, consuming)
        names = [f"database {database}" for database in turn.log.bounds]
        group = f"group {turn.group_id}"
        ahead = dict(turn.offsets)
        async with self._waiting.of(request, self._dsn, names, timeout_ms, group) as wait:
            while True:
                is_due = wait.listen()
                async with self._pool.connection() as connection:
                    if is_due:
                        await caller.require(connection)
                        before = turn
                        turn = await self._groups.begin(connection, consuming, turn.request)
                        wait.look_after(_next_s(consuming, turn))
                        ahead = _gone_on(before, turn, ahead)
                    events, ahead = await _read(connection, ahead)
                    is_mine = True
                    if events or wait.is_over:
                        is_mine = await self._groups.hand_out(
                            connection, consuming, turn, ahead, events, lambda: wait.has_left
                        )
                if wait.is_over or (events and is_mine):
                    return events if is_mine else []
                if not is_mine:
                    # Another has a partition of them now: look at the group.
                    wait.look_after(0)
                    continue
                await wait.news()


def _offsets(log: TopicLog, given: Fetch) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for topic, partition, offset in ((p.topic, p.partition, p.offset) for p in given.places):
        bounds = log.bounds_of(topic, partition)
        log.require(topic, partition, bounds.first if offset is None else offset)
        if (topic, partition) in found:
            raise Invalid(f"partition {partition} of {topic} is named twice")
        found[topic, partition] = bounds.first if offset is None else offset
    return found


def _gone_on(
    before: Turn, turn: Turn, ahead: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return where to read in the turn as it is now, what was looked through already left out."""
    return {
        key: ahead[key] if before.offsets.get(key) == offset else offset
        for key, offset in turn.offsets.items()
    }


async def _read(
    connection: AsyncConnection, offsets: dict[TopicPartition, int]
) -> tuple[list[Event], dict[TopicPartition, int]]:
    """Return events, and where to go on."""
    if not offsets:
        return [], offsets
    log = await TopicLog.look(connection)
    offsets = {key: offset for key, offset in offsets.items() if key[0] in log.topics}
    read = await log.read(connection, offsets)
    return read.events, read.following


def database_names(log: TopicLog, keys: Iterable[TopicPartition]) -> list[str]:
    """Return what to listen for, to be told of messages of these topics."""
    return sorted({f"database {log.topics[topic].database_id}" for topic, _ in keys})


def _next_s(consuming: Consuming, turn: Turn) -> float:
    """Return the seconds after which to look without being woken: before one's own session ends,
    and when another's does."""
    own_s = consuming.options.session_timeout_ms / 3000
    ends_s = LOOK_S if turn.ends_s is None else max(0.05, turn.ends_s)
    return min(LOOK_S, own_s, ends_s)
