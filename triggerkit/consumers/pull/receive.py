"""Receiving: what is free of a consumer's part of the log is read, rendered and leased."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg

from triggerkit.consumers.calls.functions import verdict_of
from triggerkit.consumers.pull import parking, truncates
from triggerkit.consumers.pull.calls import Made, Uncalled
from triggerkit.consumers.pull.consumers import Pulled
from triggerkit.consumers.pull.leases import (
    HAS_MORE,
    LEASE,
    NOTE_SET_ASIDE,
    ack_head,
    new_lease,
)
from triggerkit.consumers.pull.parking import SetAside
from triggerkit.consumers.pull.reading import BOUND, MAX_BYTES, PARTITION, read
from triggerkit.consumers.render import RowRenderer
from triggerkit.consumers.selection import WANTED, Faulty, Verdict
from triggerkit.log.entry import ACTION, Entry
from triggerkit.log.reader import entry_of_row

#: Seconds until what another caller had locked is looked at again.
CONTENTION_S = 0.01

#: When something that cannot be handed out now can be: seconds until a lease or a delay ends, None
#: without any; and whether something can at once, which another caller had locked, those cursors
#: left aside that wait for others.
_NEXT = f"""
SELECT extract(epoch FROM least(
        (SELECT min(lease_until) FROM triggerkit.cursors
         WHERE consumer_id = %(consumer_id)s AND lease_until > clock_timestamp()),
        (SELECT min(due_at) FROM triggerkit.parked
         WHERE consumer_id = %(consumer_id)s AND state = 'failing' AND due_at > clock_timestamp())
    ) - clock_timestamp())::float8,
    EXISTS (
        SELECT FROM triggerkit.cursors c
        WHERE c.consumer_id = %(consumer_id)s
          AND (c.lease_until IS NULL OR c.lease_until <= clock_timestamp())
          AND c.partition <> ALL (%(waiting)s::smallint[]) AND {HAS_MORE})
"""  # noqa: S608 - of constants


class Received(NamedTuple):
    """The outcome of a try: messages to hand out, leased by now. Without any, `has_moved` when
    cursors moved over what nobody wants, else `next_s`: the seconds until something may be free
    again without anybody's doing, None for never. With `uncalled` nothing was done."""

    messages: list[bytes]
    has_moved: bool = False
    next_s: float | None = None
    uncalled: Uncalled | None = None

    def body(self) -> bytes:
        """Return the messages as JSON: `{"data": [message, …]}`."""
        return b'{"data":[%b]}' % b",".join(self.messages)


@dataclass(slots=True)
class _Range:
    """A range taken of one cursor: entries from `first` to `last`, none at 0."""

    first: int
    last: int = 0
    messages: int = 0


class Receiving:
    """One try to receive at most `batch_size` messages, within a transaction."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        pulled: Pulled,
        batch_size: int,
        is_gone: Callable[[], bool],
        made: Made,
    ) -> None:
        """Hand out nothing once `is_gone` says that the caller is; `made` is what the consumer's
        functions, if it has any, made by now."""
        self._connection = connection
        self._pulled = pulled
        self._consumer = pulled.consumer
        self._batch_size = batch_size
        self._is_gone = is_gone
        made.by(pulled.functions)
        self._made = made
        self._lease = new_lease()
        self._is_by_kind = self._consumer.is_by_kind
        self._is_transformed = self._consumer.definition.transform is not None
        self._messages: list[bytes] = []
        self._size_bytes = 0
        self._kinds: dict[tuple[str, str, str], Verdict] = {}
        self._ranges: dict[int, _Range] = {}
        self._set_aside: list[SetAside] = []
        self._is_any_blocked = False
        self._uncalled: list[bytes] = []
        self._uncalled_again: list[bytes] = []
        #: The cursors that a truncate, or its echo, is next behind.
        self._waiting: list[int] = []

    async def run(self, scan: int) -> Received:
        """Try with at most `scan` entries of each free cursor. The transaction is over after it.

        Raises:
            Changed: the consumer changed since it was loaded.
        """
        rows, is_any_set_aside = await read(self._connection, self._pulled, scan)
        waiting_keys: set[str] = set()
        if is_any_set_aside:
            await self._take_due()
            entries = (entry_of_row(row) for row in rows if row[0] is not None)
            keys = {self._consumer.key_of(entry) for entry in entries}
            waiting_keys = await parking.set_aside_keys(self._connection, self._consumer.id, keys)
        await self._take(rows, waiting_keys)
        is_any = bool(self._messages or self._ranges or self._is_any_blocked)
        is_to_call = bool(self._uncalled or self._uncalled_again)
        if is_to_call and not (is_any and self._made.suffices):
            await self._connection.rollback()
            assert self._pulled.functions is not None
            uncalled = Uncalled(self._pulled.functions, self._uncalled, self._uncalled_again)
            return Received([], uncalled=uncalled)
        if not is_any:
            return await self._nothing()
        if self._is_gone():
            await self._connection.rollback()
            return Received([])
        await self._keep()
        return Received(self._messages, has_moved=not self._messages)

    async def _take_due(self) -> None:
        """Hand out again what was handed back, if it is time."""
        connection, consumer = self._connection, self._consumer
        due = await parking.due(connection, consumer.id, self._batch_size)
        if self._pulled.functions is not None:
            made = self._made.of_handed_back
            self._uncalled_again = [m.body for m in due if m.body not in made]
            due = [message for message in due if message.body in made]
        await parking.lease(connection, consumer, self._lease, due)
        for message in due:
            verdict = self._pulled.selection.passes(message.body)
            # One that passes no filter any more is handed out all the same: it was wanted.
            sent = verdict.fault or self._made.of_handed_back.get(message.body) or message.body
            if isinstance(sent, Faulty):
                await parking.block(connection, consumer.id, message, sent.reason)
                self._is_any_blocked = True
            else:
                head = ack_head(message.partition, self._lease, parked=True)
                self._hand_out(head, message.position, sent)

    async def _take(self, rows: Sequence[Any], waiting_keys: set[str]) -> None:
        """Take entries until the batch is full; those of `waiting_keys` are set aside."""
        for partition, of_cursor in groupby(rows, itemgetter(PARTITION)):
            if self._is_full:
                return
            behind = list(of_cursor)
            first = behind[0]
            if first[0] is None:
                # All that was left of a range was settled before.
                if first[BOUND] is not None:
                    self._ranges[partition] = _Range(first[BOUND], first[BOUND])
                continue
            if first[ACTION] == "truncate":
                barrier = entry_of_row(first)
                if self._consumer.stops_at(barrier):
                    await self._stand_at(partition, barrier, first)
                    continue
            taken = _Range(first[0])
            self._take_behind(partition, taken, iter(behind), waiting_keys)
            if taken.last:
                self._ranges[partition] = taken

    async def _stand_at(self, partition: int, barrier: Entry, row: Any) -> None:
        """Take a truncate, alone, or pass its echo, if it is time."""
        connection, consumer, position = self._connection, self._consumer, barrier.position
        if barrier.is_echo:
            if await truncates.is_done(connection, consumer, barrier):
                self._ranges[partition] = _Range(position, position)
            else:
                self._waiting.append(partition)
            return
        is_time = await truncates.may_be_handed_out(connection, consumer, barrier, partition)
        if is_time:
            taken = _Range(position)
            self._take_behind(partition, taken, iter([row]), set(), stops=False)
            if taken.last:
                self._ranges[partition] = taken
        elif is_time is not None:
            self._waiting.append(partition)

    def _take_behind(
        self,
        partition: int,
        taken: _Range,
        rows: Iterator[Any],
        waiting_keys: set[str],
        *,
        stops: bool = True,
    ) -> None:
        """Take entries of one cursor, all at once as long as none has to be looked at."""
        head = ack_head(partition, self._lease)
        renderer = None if waiting_keys else self._pulled.selection.rows
        while not self._is_full:
            if renderer is None:
                row = next(rows, None)
            else:
                row = self._render(renderer, rows, head, taken)
            if row is None:
                return
            entry = entry_of_row(row)
            if entry.action == "truncate" and stops and self._consumer.stops_at(entry):
                taken.last = entry.position - 1
                return
            verdict = self._wants(entry)
            if verdict == WANTED and self._pulled.functions is not None:
                message = self._pulled.selection.message(entry)
                if message not in self._made.of_log:
                    self._ask(chain([entry], map(entry_of_row, rows)))
                    return
                verdict = verdict_of(self._made.of_log[message])
            taken.last = entry.position
            if not verdict.is_wanted:
                continue
            aside = self._take_one(head, entry, verdict.fault, waiting_keys)
            if aside is None:
                taken.messages += 1
            else:
                self._set_aside.append(aside._replace(partition=partition))
                # There may be more of its key behind it.
                renderer = None

    def _ask(self, entries: Iterator[Entry]) -> None:
        """Note for which entries functions have to be called: as many as there is room for, and
        more the more of them were not wanted."""
        selection, made = self._pulled.selection, self._made.of_log
        wanted = (selection.message(one) for one in entries if selection.wants(one) == WANTED)
        room = self._batch_size - len(self._messages) - len(self._uncalled) + self._made.unwanted
        self._uncalled += islice((one for one in wanted if one not in made), max(room, 0))

    def _render(
        self, renderer: RowRenderer, rows: Iterator[Any], head: str, taken: _Range
    ) -> Any | None:
        """Hand out entries up to one that has to be looked at, which is returned."""
        messages, room_bytes = self._messages, MAX_BYTES - self._size_bytes
        count, room = len(messages), self._batch_size - len(messages)
        last, faulty = renderer.render(rows, head, messages, room, room_bytes)
        if last is not None:
            taken.last = last
        taken.messages += len(messages) - count
        self._size_bytes += sum(map(len, messages[count:]))
        return faulty

    @property
    def _is_full(self) -> bool:
        return len(self._messages) >= self._batch_size or self._size_bytes > MAX_BYTES

    def _wants(self, entry: Entry) -> Verdict:
        if not self._is_by_kind or entry.consumer_id is not None or entry.fault:
            return self._pulled.selection.wants(entry)
        kind = entry.schema, entry.table, entry.action
        wanted = self._kinds.get(kind)
        if wanted is None:
            wanted = self._kinds[kind] = self._pulled.selection.wants(entry)
        return wanted

    def _take_one(
        self, head: str, entry: Entry, fault: Faulty | None, waiting_keys: set[str]
    ) -> SetAside | None:
        """Hand out `entry`, or return it when it must be set aside."""
        selection, consumer = self._pulled.selection, self._consumer
        message = selection.message(entry)
        if waiting_keys and consumer.key_of(entry) in waiting_keys:
            return parking.waiting(consumer, entry, message)
        sent = fault or self._made.of_log.get(message) or message
        if isinstance(sent, bytes):
            self._hand_out(head, entry.position, sent)
            return None
        faulty = parking.faulty(consumer, entry, message, sent)
        if faulty.state == "blocked":
            waiting_keys.add(faulty.key)
        return faulty

    def _hand_out(self, head: str, position: int, sent: bytes) -> None:
        # Of the message, an object, all but its first brace.
        name, rest = (b'"message":', sent + b"}") if self._is_transformed else (b"", sent[1:])
        self._messages.append(b'{"ack_id":"%b%d",%b%b' % (head.encode(), position, name, rest))
        self._size_bytes += len(sent)

    async def _keep(self) -> None:
        """Make it so: what is handed out is leased, what is not is passed over."""
        connection, consumer, ranges = self._connection, self._consumer, self._ranges
        if self._set_aside:
            await parking.put(connection, consumer.id, self._set_aside)
        parameters = {
            "consumer_id": consumer.id,
            "partitions": list(ranges),
            "firsts": [taken.first for taken in ranges.values()],
            "lasts": [taken.last for taken in ranges.values()],
            "counts": [taken.messages for taken in ranges.values()],
            "lease": self._lease,
            "timeout_s": consumer.definition.timeout_s,
        }
        async with connection.pipeline():
            if not self._set_aside:
                # With a lease that a crash of the server forgets, its messages come again.
                await connection.execute("SET LOCAL synchronous_commit = off")
            if ranges:
                await connection.execute(LEASE, parameters)
            for partition in {one.partition for one in self._set_aside}:
                positions = [m.position for m in self._set_aside if m.partition == partition]
                await connection.execute(NOTE_SET_ASIDE, [positions, consumer.id, partition])
            await connection.execute("COMMIT")

    async def _nothing(self) -> Received:
        connection, consumer = self._connection, self._consumer
        parameters = {
            "consumer_id": consumer.id,
            "database_id": consumer.database_id,
            "waiting": self._waiting,
        }
        cursor = await connection.execute(_NEXT, parameters)
        row = await cursor.fetchone()
        await connection.commit()
        assert row is not None
        next_s, is_more = row
        return Received([], next_s=CONTENTION_S if is_more else next_s)
