"""Fetch by offset, and consume by group: read, and wait for what is not there yet."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from triggerkit.events.groups.service import Consuming, Groups, Turn
from triggerkit.events.message import Message
from triggerkit.events.source import (
    OffsetOutOfRange,
    Read,
    Source,
    TopicPartition,
    View,
)
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
    """What requests for messages do. No connection is held while messages are read or waited
    for."""

    def __init__(
        self, pool: Pool, source: Source, dsn: str, waiting: Waiting, groups: Groups
    ) -> None:
        self._pool = pool
        self._source = source
        self._dsn = dsn
        self._waiting = waiting
        self._groups = groups
        self._empty = Empty()

    async def fetch(self, request: Request, caller: Caller, given: Fetch) -> Sequence[Message]:
        """Return the messages from the given offsets on, waiting for the first.

        Raises:
            UnknownTopic, OffsetOutOfRange: see `View.require`.
            Invalid: a partition is named twice.
            KafkaFault: Kafka does not answer.
        """
        names = {place.topic for place in given.places}
        view = await self._source.look(names)
        offsets = await _offsets(view, given)
        messages = await self._fetched(view, offsets)
        if messages or given.timeout == 0:
            return messages
        written = view.written(offsets)
        async with self._waiting.of(request, self._dsn, written, given.timeout) as wait:
            while True:
                if has_looked := wait.listen():
                    await self._source.ready()
                    async with self._pool.connection() as connection:
                        await caller.require(connection)
                    wait.look_after(LOOK_S)
                view = await self._source.look(names)
                for name in names:
                    view.require_topic(name)
                messages = await self._fetched(view, offsets)
                if messages and not has_looked:
                    # The user may have been removed meanwhile.
                    async with self._pool.connection() as connection:
                        await caller.require(connection)
                if messages or wait.is_over:
                    return messages
                await wait.news()

    async def _fetched(self, view: View, offsets: dict[TopicPartition, int]) -> Sequence[Message]:
        if not view.is_shared:
            return (await view.read(offsets)).messages
        # What was once true of a name is not true of another topic that has it now.
        ids = {key: (view.id_of(key[0]) or "", key[1]) for key in offsets}
        wanted = {key: self._empty.after(ids[key], offset) for key, offset in offsets.items()}
        read = await view.read(wanted)
        if not read.messages:
            for key, end in read.following.items():
                self._empty.note(ids[key], wanted[key], end)
        return read.messages

    async def consume(
        self, request: Request, caller: Caller, consuming: Consuming, timeout_ms: int
    ) -> Sequence[Message]:
        """Return messages for an instance of a group, waiting for the first.

        Raises:
            UnknownTopic, Superseded, NoOffset, KafkaFault: see `Groups.begin`.
        """
        async with self._pool.connection() as connection:
            turn = await self._groups.begin(connection, consuming)
        group = f"group {turn.group_id}"
        written = turn.view.written(_keys(turn.view, consuming.topics))
        ahead = dict(turn.offsets)
        async with self._waiting.of(request, self._dsn, written, timeout_ms, group) as wait:
            while True:
                if has_looked := wait.listen():
                    await self._source.ready()
                    before = turn
                    async with self._pool.connection() as connection:
                        await caller.require(connection)
                        turn = await self._groups.begin(connection, consuming, turn.request)
                    wait.look_after(_next_s(turn))
                    ahead, view = _gone_on(before, turn, ahead), turn.view
                else:
                    view = await self._source.look(consuming.topics)
                read = await _read(view, ahead)
                if read is None:
                    # What it was to read is gone: the group says where to go on.
                    wait.look_after(0)
                    read = Read([], ahead)
                messages, ahead = read
                is_mine = True
                if messages or wait.is_over:
                    async with self._pool.connection() as connection:
                        if not has_looked:
                            await caller.require(connection)
                        is_mine = await self._groups.hand_out(
                            connection, consuming, turn, ahead, messages, lambda: wait.has_left
                        )
                if wait.is_over or (messages and is_mine):
                    return messages if is_mine else []
                if not is_mine:
                    # Another has a partition of them now: look at the group.
                    wait.look_after(0)
                    continue
                await wait.news()


async def _offsets(view: View, given: Fetch) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for topic, partition, offset in ((p.topic, p.partition, p.offset) for p in given.places):
        first = view.bounds_of(topic, partition).first if offset is None else offset
        await view.require(topic, partition, first)
        if (topic, partition) in found:
            raise Invalid(f"partition {partition} of {topic} is named twice")
        found[topic, partition] = first
    return found


def _keys(view: View, topics: Sequence[str]) -> list[TopicPartition]:
    return [(topic, number) for topic in topics for number in range(view.partitions[topic])]


def _gone_on(
    before: Turn, turn: Turn, ahead: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return where to read in the turn as it is now, what was looked through already left out."""
    return {
        key: ahead[key] if before.offsets.get(key) == offset else offset
        for key, offset in turn.offsets.items()
    }


async def _read(view: View, offsets: dict[TopicPartition, int]) -> Read | None:
    """Return messages, and where to go on; None where an offset is there no more."""
    if not offsets:
        return Read([], offsets)
    try:
        read = await view.read(offsets)
    except OffsetOutOfRange:
        return None
    return Read(read.messages, offsets | read.following)


def _next_s(turn: Turn) -> float:
    """Return the seconds after which to look without being woken: before one's own session ends,
    and when another's does."""
    own_s = turn.session_s / 3
    ends_s = LOOK_S if turn.ends_s is None else max(0.05, turn.ends_s)
    return min(LOOK_S, own_s, ends_s)
