"""Capture: the stream of a slot as parts of transactions, confirmed only when they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from triggerkit.change import RowChange, Transaction
from triggerkit.failpoints import reach
from triggerkit.lsn import Lsn
from triggerkit.replication import heartbeat, wal_marker
from triggerkit.replication.catalog import Catalog
from triggerkit.replication.codec import annotation
from triggerkit.replication.codec.frames import (
    PrimaryKeepalive,
    parse_keepalive,
    payload_of,
    position_of,
)
from triggerkit.replication.codec.messages import (
    Begin,
    Commit,
    Insert,
    LogicalMessage,
    Relation,
    Truncate,
    Update,
)
from triggerkit.replication.codec.pgoutput import commit_time, decode
from triggerkit.replication.codec.relations import RelationCache
from triggerkit.replication.connection import ReplicationConnection, answering
from triggerkit.replication.heartbeat import Heartbeat
from triggerkit.replication.sighting import Sighting
from triggerkit.replication.slot.source_server import Server
from triggerkit.replication.versions import Versions, full_xid


@dataclass(slots=True)
class TransactionPart:
    """Consecutive changes of one transaction, all with the annotations of its `transaction`.

    Large transactions, and those whose annotations change, come in several parts. `first_idx` is
    the index of the first change in its transaction. `end_lsn` is set on the last part: confirming
    it means not to get the transaction again. `sightings` are of relations announced before the
    changes, in this transaction or in others before it that have nothing else.
    """

    transaction: Transaction
    first_idx: int
    changes: list[RowChange] = field(default_factory=list)
    messages: list[LogicalMessage] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    end_lsn: Lsn | None = None


class Capture:
    """Reads a slot. Parts returned by `read` count as durable when `confirm` names their end.

    They may be read ahead of it: as long as one is not confirmed, nothing beyond it is.
    """

    def __init__(
        self,
        connection: ReplicationConnection,
        catalog: Catalog,
        heartbeat: Heartbeat,
        after: int,
        last_xid: int,
    ) -> None:
        self._connection = connection
        self._heartbeat = heartbeat
        self.server = connection.server
        #: What the slot had confirmed before.
        self.confirmed_before = connection.confirmed_before
        self._catalog = catalog
        self._relations = RelationCache()
        self._after = after
        self._xid = last_xid
        self._part: TransactionPart | None = None
        #: What was announced by transactions that are not handed over.
        self._unsaid: list[Sighting] = []
        self._skipping = False
        #: The end of the last transaction that was handed over, durable or not.
        self._handed_over = Lsn(0)
        #: The size of the frames that `read` made its last parts of.
        self.read_bytes = 0
        #: The marker table, once a server has announced it that streams no messages.
        self._mark_oid = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        slot_name: str,
        publication: str,
        after: int,
        known: Server | None = None,
        versions: Versions | None = None,
        remember: Callable[[Lsn], Awaitable[None]] | None = None,
        primary_dsn: str | None = None,
    ) -> AsyncIterator[Self]:
        """Stream from the slot; transactions up to the commit LSN `after` are passed over.

        `known` is the server that those were streamed from, and `versions` remembers the relations
        that were. Before anything is confirmed that is not handed over, `remember` is awaited. With
        a `primary_dsn` the server of the slot is a standby of that one.

        Raises:
            CannotConnect, SlotError: see `ReplicationConnection.open`.
        """
        async with AsyncExitStack() as stack:
            catalog = Catalog(primary_dsn or dsn, versions, publication)
            stack.push_async_callback(catalog.close)
            async with answering():
                last_xid = await catalog.last_xid()
                connection = await ReplicationConnection.open(
                    dsn, slot_name, publication, known, after
                )
            stack.push_async_callback(connection.close)
            heartbeat = Heartbeat(primary_dsn or dsn, connection)
            works = (
                connection.keep_alive(),
                connection.confirm_passed_over(remember or _nothing),
                heartbeat.run(),
            )
            for work in works:
                stack.push_async_callback(_canceled, asyncio.create_task(work))
            yield cls(connection, catalog, heartbeat, after, last_xid)

    async def read(self) -> list[TransactionPart]:
        """Wait for the stream and return what came.

        Raises:
            ProtocolError: the stream cannot be understood.
            psycopg.OperationalError: the connection broke.
        """
        while True:
            parts: list[TransactionPart] = []
            frames = await self._connection.receive()
            reach("frame-received")
            self._heartbeat.reached(position_of(frames[-1]))
            self.read_bytes = sum(map(len, frames))
            for frame in frames:
                payload = payload_of(frame)
                if payload is None:
                    self._on_keepalive(parse_keepalive(frame))
                else:
                    await self._on_message(payload, parts)
            self._split(parts)
            if parts:
                return parts

    def confirm(self, end_lsn: Lsn) -> None:
        """Note that all parts returned so far, up to `end_lsn`, are durable."""
        reach("lsn-before-confirm")
        self._connection.confirm(end_lsn)
        reach("lsn-after-confirm")

    async def _on_message(self, payload: bytes, parts: list[TransactionPart]) -> None:
        if self._skipping and payload[:1] not in b"CRY":
            return
        part = self._part
        if part is not None and payload[:1] in b"IUD":
            changes = self._relations.row_changes(payload)
            if changes:
                part.changes += changes
            elif self._mark_oid:
                self._on_own_row(payload, parts)
            return
        message = decode(payload)
        if isinstance(message, Truncate) and part is not None:
            part.changes += self._relations.changes(message)
        elif isinstance(message, Begin):
            await self._begin(message)
        elif isinstance(message, Commit):
            self._commit(message, parts)
        elif isinstance(message, Relation):
            await self._announce(message, parts)
        elif isinstance(message, LogicalMessage):
            self._on_marker(message, parts)

    def _on_own_row(self, payload: bytes, parts: list[TransactionPart]) -> None:
        """Take a row of a skipped relation for a marker, if it is of the marker table."""
        message = decode(payload)
        if isinstance(message, Insert | Update) and message.relation_oid == self._mark_oid:
            marker = wal_marker.marker_of(message.new)
            if marker is not None:
                self._on_marker(marker, parts)

    def _on_marker(self, message: LogicalMessage, parts: list[TransactionPart]) -> None:
        part = self._part
        if part is None:
            return
        if annotation.is_about(message):
            self._split(parts)
            part = self._part = self._part or part
            noted = annotation.after(message, part.transaction.annotations)
            part.transaction = replace(part.transaction, annotations=noted)
        elif not message.prefix.startswith(wal_marker.OWN_PREFIX):
            # An application's own, of which there may be any number.
            return
        elif message.prefix != heartbeat.PREFIX or self._heartbeat.is_back(message):
            part.messages.append(message)

    async def _begin(self, message: Begin) -> None:
        self._skipping = message.final_lsn <= self._after
        self._xid = full_xid(message.xid, self._xid)
        commit_at = commit_time(message.commit_time_us)
        transaction = Transaction(message.final_lsn, commit_at, self._xid)
        unsaid, self._unsaid = self._unsaid, []
        self._part = part = TransactionPart(transaction, 0, sightings=unsaid)
        for relation in await self._catalog.changed(self._xid, message.final_lsn):
            self._relations.put(relation)
            part.sightings.append(await self._catalog.sight(relation, self._xid))

    def _commit(self, message: Commit, parts: list[TransactionPart]) -> None:
        part, self._part = self._part, None
        assert part is not None
        if part.changes or part.messages or part.first_idx:
            part.end_lsn = self._handed_over = message.end_lsn
            parts.append(part)
        elif self._is_all_durable:
            # Nothing of it concerns us and nothing is in flight: confirmed without a write, else
            # our own commits would answer themselves forever on servers before 15.
            self._connection.pass_over(message.end_lsn)
        if part.end_lsn is None:
            self._unsaid = part.sightings
        self._skipping = False

    @property
    def _is_all_durable(self) -> bool:
        return self._part is None and self._handed_over <= self._connection.flushed

    async def _announce(self, relation: Relation, parts: list[TransactionPart]) -> None:
        if relation.schema == wal_marker.OWN_SCHEMA:
            self._relations.skip(relation.oid)
            if relation.table == wal_marker.TABLE:
                self._mark_oid = relation.oid
        else:
            async with answering():
                lsn = self._part.transaction.commit_lsn if self._part is not None else 0
                compiled = await self._catalog.compile(relation, self._xid, lsn)
                sighting = await self._catalog.sight(compiled, self._xid)
            self._relations.put(compiled)
            # What came before in this transaction is of the relation as it was.
            self._split(parts)
            (self._unsaid if self._part is None else self._part.sightings).append(sighting)

    def _on_keepalive(self, keepalive: PrimaryKeepalive) -> None:
        if self._is_all_durable:
            # Nothing in flight: the WAL up to here holds nothing for us. Not confirming it would
            # make the server keep what others write forever.
            self._connection.pass_over(keepalive.wal_end)
        if keepalive.reply_requested:
            self._connection.answer()

    def _split(self, parts: list[TransactionPart]) -> None:
        """Hand over the part of a transaction that is still coming in, to bound the memory."""
        part = self._part
        if part is not None and part.changes:
            parts.append(part)
            self._part = TransactionPart(part.transaction, part.first_idx + len(part.changes))


async def _nothing(_lsn: Lsn) -> None:
    pass


async def _canceled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
