"""The one writer of a log on Kafka: what it appends is with the brokers before the state knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import psycopg

from triggerkit.errors import Fenced
from triggerkit.failpoints import reach
from triggerkit.kafkalog.message import fitted, marks
from triggerkit.kafkalog.producer import Sent, TransactionalProducer
from triggerkit.kafkalog.stored import StoredLog
from triggerkit.kafkalog.topic import OVERHEAD_BYTES, ensure_topic, require_kafka, topic_name
from triggerkit.log.entry import ENTRY_BYTES, Entry, Pending, entry_of
from triggerkit.log.followed import Moves
from triggerkit.log.writing import ADVANCE, OPEN, Statement
from triggerkit.replication.sighting import Sighting
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

#: What the log has and the state does not know of: it was written, and then the writer died.
_CATCH_UP: Final = """
UPDATE triggerkit.databases SET next_position = greatest(next_position, %s),
    last_commit_lsn = greatest(last_commit_lsn, %s)
WHERE id = %s AND writer_epoch = %s
RETURNING next_position, last_commit_lsn
"""


class KafkaLogWriter:
    """Appends to the log of one database: to its topic, and then to what the state knows of it.

    Guarantee: when `commit` returns, what was written is with the brokers once, in the order of
    `write`, at ascending positions, and the state knows. An append that raises may be in the log:
    the next writer finds out.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        producer: TransactionalProducer,
        database_id: int,
        limit_bytes: int,
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._limit_bytes = limit_bytes - OVERHEAD_BYTES
        self.database_id = database_id
        #: What others that write for this writer are fenced by.
        self.epoch = 0
        self.epoch_position = 1
        #: The slot whose LSNs `last_commit_lsn` counts by.
        self.slot_epoch = 0
        self.next_position = 1
        self.last_commit_lsn = 0
        self._stored_position = 1
        self._held: list[Sent] = []
        self._held_bytes = 0
        #: Who delivers reads them from Kafka: none are kept.
        self.kept_bytes = 0
        self.forgotten: Moves = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database_id: int) -> AsyncIterator[Self]:
        """Become the writer of this database's log. What was not committed at the end is gone.

        Raises:
            CannotConnect: the state database does not answer.
            KafkaFault: Kafka does not answer, or does not let us write.
            ConfigurationError: a setting, or the topic, is wrong.
        """
        kafka = require_kafka(settings)
        connection = await connect(settings.state_dsn, "triggerkit log")
        try:
            topic = await ensure_topic(await topic_name(connection, database_id), settings)
            producer = TransactionalProducer(kafka, topic.name, topic.limit_bytes)
            try:
                writer = cls(connection, producer, database_id, topic.limit_bytes)
                await writer._take_over(settings, topic.name)
                yield writer
            finally:
                await producer.close()
        finally:
            await connection.close()

    async def _take_over(self, settings: Settings, topic: str) -> None:
        row = await (await self._connection.execute(OPEN, [self.database_id])).fetchone()
        if row is None:
            raise Fenced(f"database {self.database_id} was removed from triggerkit.databases")
        self.epoch, _, _, self.epoch_position, self.slot_epoch = row
        # From here on the topic has what earlier writers committed, and nothing more of theirs.
        await self._producer.take_over()
        stored = StoredLog(settings.kafka, topic)
        try:
            ends = await stored.ends()
        finally:
            await stored.close()
        lasts = [end.last for end in ends.values() if end.last is not None]
        position = max((last.entry.position for last in lasts), default=0)
        lsns = [last.entry.commit_lsn for last in lasts if last.slot_epoch == self.slot_epoch]
        values = [position + 1, max(lsns, default=0), self.database_id, self.epoch]
        row = await (await self._connection.execute(_CATCH_UP, values)).fetchone()
        if row is None:
            raise Fenced
        self.next_position, self.last_commit_lsn = row
        self._stored_position = self.next_position

    def write(self, pending: Pending) -> int:
        """Add one change to the append, a truncate with its echoes; return the bytes now held in
        memory."""
        entry = entry_of(self.next_position, pending)
        self._write(entry)
        if entry.action == "truncate":
            for echo in entry.echoes():
                self._write(echo._replace(position=self.next_position))
        return self._held_bytes

    def mark(self, commit_lsn: int, commit_at: str) -> None:
        """Add a mark to each partition: what reads it knows that nothing else came before."""
        for mark in marks(self.next_position, commit_lsn, commit_at):
            self._write(mark)

    def _write(self, entry: Entry) -> None:
        key, value = fitted(entry, self.slot_epoch, self._limit_bytes)
        self.next_position = entry.position + 1
        self._held.append(Sent(entry.partition, key, value))
        self._held_bytes += ENTRY_BYTES + len(value)

    async def see(self, sighting: Sighting) -> None:
        """Nothing is looked up in this log: what a relation is makes no difference to it."""

    async def read(self, sighting: Sighting, first: int) -> None:
        """See `see`."""

    async def flush(self) -> None:
        """Hand what is held in memory to Kafka, not yet committed."""
        await self._producer.send(self._let_go())

    def forget(self) -> None:
        """Nothing is kept for `commit` to return."""

    async def commit(
        self,
        last_commit_lsn: int,
        also: Sequence[Statement] = (),
        *,
        confirmed_lsn: int | None = None,
    ) -> list[Entry]:
        """Make the append durable in Kafka, and then known to the state with the statements in
        `also`.

        Returns none: they are read from Kafka.

        Raises:
            Fenced: another writer took over.
            KafkaFault: the brokers do not have it, or do not say so.
        """
        await self._producer.commit(self._let_go())
        reach("log-written")
        connection = self._connection
        async with connection.transaction():
            cursor = await connection.execute(
                ADVANCE,
                [
                    self.next_position,
                    last_commit_lsn,
                    confirmed_lsn,
                    self.database_id,
                    self.epoch,
                    self._stored_position,
                ],
            )
            if cursor.rowcount != 1:
                raise Fenced
            for statement in also:
                await connection.execute(statement.query, statement.parameters)
        reach("log-committed")
        self._stored_position = self.next_position
        self.last_commit_lsn = max(self.last_commit_lsn, last_commit_lsn)
        return []

    def _let_go(self) -> list[Sent]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held
