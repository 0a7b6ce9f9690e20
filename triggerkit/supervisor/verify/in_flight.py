"""Find what is on its way to a task: rows whose effect is not late yet, but to come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.definition import TableName
from triggerkit.log.entry import PARTITIONS
from triggerkit.log.search import not_searched
from triggerkit.message import row_key

#: Messages and runs that are looked at, of each. What is beyond is counted, its rows not known.
MOST_MESSAGES: Final = 100_000
MOST_RUNS: Final = 2_000

#: Seconds the stream may take to have all that was committed before a look, and how often to ask.
CAPTURE_S: Final = 2.0
CAPTURE_CHECK_S: Final = 0.02

# The consumer's database, or the one of this name where there is no such consumer.
_DATABASE = """
SELECT d.id, d.name, d.slot_epoch, d.slot_name, d.next_position, c.id, d.log
FROM triggerkit.databases d
LEFT JOIN triggerkit.consumers c ON c.database_id = d.id AND c.name = %s
WHERE c.id IS NOT NULL OR d.name = %s ORDER BY c.id LIMIT 1
"""

# The messages of the table that the consumer has before it. `k.partition` is -1 where one cursor
# stands for all partitions.
_MESSAGES = """
SELECT e.key, e.captured_at FROM triggerkit.cursors k
JOIN generate_series(0, %(partitions)s - 1) n (partition) ON k.partition IN (n.partition, -1)
JOIN triggerkit.events e ON e.database_id = %(database)s AND e.partition = n.partition
    AND e.position > k.position
WHERE k.consumer_id = %(consumer)s AND e.schema_name = %(schema)s AND e.table_name = %(table)s
    AND coalesce(e.consumer_id, %(consumer)s) = %(consumer)s
LIMIT %(most)s
"""

# What the log got since a position, delivered or not.
_SINCE = """
SELECT e.key, e.captured_at FROM generate_series(0, %(partitions)s - 1) n (partition)
JOIN triggerkit.events e ON e.database_id = %(database)s AND e.partition = n.partition
    AND e.position >= %(position)s
WHERE e.schema_name = %(schema)s AND e.table_name = %(table)s
LIMIT %(most)s
"""

#: By their rows; what an earlier version parked has its row in its key, unless that is a group's.
_PARKED = """
SELECT coalesce(triggerkit.table_text(schema_name, table_name) || ':' || row_key, key),
    state IN ('failing', 'waiting')
FROM triggerkit.parked WHERE consumer_id = %(consumer)s LIMIT %(most)s
"""

_BACKFILL = """
SELECT min(created_at) FROM triggerkit.backfills WHERE consumer_id = %(consumer)s
    AND state = 'active' AND schema_name = %(schema)s AND table_name = %(table)s
"""

_RUNS = """
SELECT payload, count(*) OVER (), created_at FROM triggerkit.runs
WHERE task = %s AND finished_at IS NULL ORDER BY seq LIMIT %s
"""

_CONFIRMED = """
SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Rows on their way at a moment: messages before the consumer, unfinished runs, a backfill.

    `rows` has the identities (`row_key`) of those rows that are known, and since when they are on
    their way; under a backfill, which began at `backfill_at`, any row may be still to come.
    `parked` are rows with a message that was set aside, and whether it is tried again by itself:
    nothing of them is on its way as far as anybody knows.
    """

    rows: Mapping[str, datetime] = field(default_factory=dict)
    messages: int = 0
    runs: int = 0
    backfill_at: datetime | None = None
    parked: Mapping[str, bool] = field(default_factory=dict)

    @property
    def backfill(self) -> bool:
        """Return whether the table is being read for the consumer."""
        return self.backfill_at is not None


class _Metadata(msgspec.Struct):
    table_schema: str
    table_name: str
    record_pks: tuple[str | int, ...] = ()


class _Message(msgspec.Struct):
    metadata: _Metadata


class _Payload(msgspec.Struct):
    """A batch, or one message."""

    data: list[_Message] | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_Payload).decode


class Pipeline:
    """The way from a table to a task, as the state has it. Without a consumer it has runs alone."""

    def __init__(self, states: AsyncConnectionPool, task: str, table: TableName) -> None:
        self._states = states
        self._task = task
        self._table = table
        self._facts: dict[str, Any] | None = None
        #: The source database and the consumer as messages name them; None where not known.
        self.database: dict[str, Any] | None = None
        self.consumer: dict[str, Any] | None = None
        self._slot = ""

    async def open(self, consumer: str, database: str) -> None:
        """Look up the consumer and its database; they may not be there yet.

        Raises:
            TriggerkitError: the log is on Kafka.
        """
        async with self._states.connection() as state:
            row = await (await state.execute(_DATABASE, [consumer, database])).fetchone()
        if row is None:
            return
        database_id, name, epoch, self._slot, head, consumer_id, place = row
        if place == "kafka":
            raise not_searched()
        self.database = {"id": str(database_id), "name": name, "epoch": epoch}
        if consumer_id is None:
            return
        self.consumer = {"id": str(consumer_id), "name": consumer}
        self._facts = {
            "consumer": consumer_id,
            "database": database_id,
            "schema": self._table.schema,
            "table": self._table.name,
            "partitions": PARTITIONS,
            "most": MOST_MESSAGES,
            "position": head,
        }

    async def under_way(self) -> UnderWay:
        """Return the changes and runs that are on their way now."""
        async with self._states.connection() as state:
            # The messages first: one that becomes a run meanwhile is then in both, not in neither.
            messages: dict[str, datetime] = {}
            parked: dict[str, bool] = {}
            backfill_at: datetime | None = None
            if self._facts is not None:
                messages = await self._keys(state, _MESSAGES)
                parked = dict(await (await state.execute(_PARKED, self._facts)).fetchall())
                row = await (await state.execute(_BACKFILL, self._facts)).fetchone()
                backfill_at = None if row is None else row[0]
            runs, rows = await self._unfinished(state)
        for key, at in messages.items():
            rows[key] = min(at, rows.get(key, at))
        return UnderWay(rows, len(messages), runs, backfill_at, parked)

    async def captured_since_open(self, source: psycopg.AsyncConnection, lsn: str) -> set[str]:
        """Return the rows changed since `open`, once the stream has what was committed before
        `lsn`."""
        if self._facts is None:
            return set()
        deadline = monotonic() + CAPTURE_S
        while monotonic() < deadline:
            row = await (await source.execute(_CONFIRMED, [lsn, self._slot])).fetchone()
            if row is None or row[0]:
                break
            await asyncio.sleep(CAPTURE_CHECK_S)
        async with self._states.connection() as state:
            return set(await self._keys(state, _SINCE))

    async def _keys(self, state: psycopg.AsyncConnection, query: str) -> dict[str, datetime]:
        """Return the rows of entries of the log, each with the time of its first one."""
        found: dict[str, datetime] = {}
        for key, at in await (await state.execute(query, self._facts)).fetchall():
            row = f"{self._table}:{key}"
            found[row] = min(at, found.get(row, at))
        return found

    async def _unfinished(self, state: psycopg.AsyncConnection) -> tuple[int, dict[str, datetime]]:
        runs, rows = 0, dict[str, datetime]()
        # One by one: all the payloads together may be large.
        async with state.cursor() as cursor:
            async for payload, total, at in cursor.stream(_RUNS, [self._task, MOST_RUNS]):
                for row in _rows_of(payload):
                    rows.setdefault(row, at)
                runs = total
        return runs, rows


def _rows_of(payload: str) -> set[str]:
    try:
        read = _decode(payload)
    except msgspec.DecodeError:
        return set()
    found = [message.metadata for message in read.data or ()]
    if read.metadata is not None:
        found.append(read.metadata)
    return {row_key(m.table_schema, m.table_name, m.record_pks) for m in found}
