"""The two logs of one database, as those who write and read them see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import psycopg

from triggerkit.change import RowChange, Transaction
from triggerkit.kafkalog.reader import KafkaLogReader
from triggerkit.kafkalog.stored import StoredLog
from triggerkit.kafkalog.topic import topic_name
from triggerkit.kafkalog.writer import KafkaLogWriter
from triggerkit.log.entry import PARTITIONS, Entry, Pending
from triggerkit.log.reader import LogReader
from triggerkit.log.writer import LogWriter
from triggerkit.log.writing import Writing
from triggerkit.lsn import Lsn
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool


async def _nothing_is_dropped(partition: int) -> None:
    raise AssertionError(f"something of partition {partition} is gone")


@dataclass(frozen=True)
class Log:
    """Where one database's log is."""

    settings: Settings
    database_id: int

    def writer(self) -> AbstractAsyncContextManager[Writing]:
        """Become its writer."""
        if self.settings.triggerkit_log == "kafka":
            return KafkaLogWriter.open(self.settings, self.database_id)
        return LogWriter.open(self.settings.state_dsn, self.database_id)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[LogReader]:
        """Read what is stored of it."""
        async with pool(self.settings.state_dsn, "test", size=1) as connections:
            if self.settings.triggerkit_log == "postgres":
                yield LogReader(connections, self.database_id, 0)
                return
            async with await connect(self.settings.state_dsn, "test") as state:
                topic = await topic_name(state, self.database_id)
            stored = StoredLog(self.settings.kafka, topic)
            try:
                yield KafkaLogReader(connections, self.database_id, {}, stored, _nothing_is_dropped)
            finally:
                await stored.close()

    async def read_all(self) -> list[Entry]:
        """All entries that the state knows of, by position. Kafka shows each partition its part of
        an append by itself, a moment after it said that it has it."""
        last, _ = self.known()
        async with self.reader() as reader, asyncio.timeout(20):
            while True:
                found = [await reader.read_stored(p, 0, last, 1000) for p in range(PARTITIONS)]
                entries = sorted((e for some in found for e in some), key=lambda e: e.position)
                if [entry.position for entry in entries] == [*range(1, last)]:
                    return entries
                await asyncio.sleep(0.05)

    def known(self) -> tuple[int, int]:
        """The next position, and the last commit's LSN, as the state has them."""
        with psycopg.connect(self.settings.state_dsn) as connection:
            row = connection.execute(
                "SELECT next_position, last_commit_lsn FROM triggerkit.databases WHERE id = %s",
                [self.database_id],
            ).fetchone()
        assert row is not None
        return row


def transaction(lsn: int) -> Transaction:
    return Transaction(Lsn(lsn), "2026-10-28T21:39:21.127470Z", 700 + lsn)


def insert(lsn: int, idx: int, row: int, value: str = "v") -> Pending:
    """A row that a transaction inserts."""
    change = RowChange("public", "items", "insert", (str(row),), {"id": row, "v": value})
    return Pending(transaction(lsn), idx, change, 700 + lsn)
