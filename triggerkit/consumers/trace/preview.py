"""A definition tried on real messages: which of the newest ones its consumer would get."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.backfill.fault import may_not_read
from triggerkit.consumers.calls.functions import Functions, verdict_of
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.consumers.selection import Selection, Verdict
from triggerkit.consumers.source.database import Database
from triggerkit.consumers.trace.wanted import filtered_by, unwanted
from triggerkit.errors import ConfigurationError, TriggerkitError
from triggerkit.log.entry import PARTITIONS, Entry, Pending, entry_of
from triggerkit.log.reader import STORED, entry_of_row
from triggerkit.lsn import Lsn
from triggerkit.replication.slot.replication_slot import PUBLICATION

#: Milliseconds that a look through the log may take.
LOOK_MS = 5_000

#: Seconds that the filter function may take for all messages together.
CALLS_S = 6.0

#: Messages that are tried at most, and bytes of records.
MOST_TRIED = 200
MOST_BYTES = 4 * 1024 * 1024

#: The consumer that there is not yet.
_NONE_YET = -1

_NEWEST = f"""
SELECT {STORED} FROM (
    SELECT *, sum(coalesce(octet_length(record), 0) + coalesce(octet_length(changes), 0))
        OVER (ORDER BY position DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        AS bytes_before
    FROM (
        SELECT e.* FROM generate_series(0, {PARTITIONS - 1}) p CROSS JOIN LATERAL (
            SELECT * FROM triggerkit.events
            WHERE database_id = %(database)s AND partition = p AND consumer_id IS NULL
              AND (schema_name, table_name) IN (
                  SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
            ORDER BY position DESC LIMIT %(limit)s) e
        ORDER BY position DESC LIMIT %(limit)s) e) e
WHERE coalesce(bytes_before, 0) < %(most_bytes)s ORDER BY position DESC
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class Tried:
    """A message that was tried; `reason` says why it would not be sent, or would be parked."""

    entry: Entry
    is_wanted: bool
    reason: str | None = None

    @property
    def table(self) -> str:
        """Return its table's name."""
        return str(TableName(self.entry.schema, self.entry.table))


@dataclass(frozen=True, slots=True)
class Preview:
    """The messages that were tried: changes of the log, the newest first, or, where it has none of
    the tables, rows as they are (`is_of_rows`), in the order of their keys."""

    tried: Sequence[Tried]
    is_of_rows: bool

    @property
    def matching(self) -> int:
        """Return how many of them the consumer would get."""
        return sum(one.is_wanted for one in self.tried)


async def preview(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database | None,
    definition: ConsumerDefinition,
) -> Preview:
    """Try `definition`, which was held against the source; nothing is made or sent.

    Raises:
        ConfigurationError: its filter function cannot be loaded, or takes too long.
        PreflightFailed: the rows of a table cannot be read.
        TriggerkitError: the messages are not found in time.
    """
    found = [] if database is None else await _changes(state, database.id, definition)
    is_of_rows = not found
    if is_of_rows:
        publication = PUBLICATION if database is None else database.publication_name
        for table in definition.table_names:
            found += await _rows(source, table, publication)
    consumer = _consumer(definition, database)
    return Preview(await _tried(consumer, found[:MOST_TRIED]), is_of_rows)


async def _changes(
    state: psycopg.AsyncConnection, database_id: int, definition: ConsumerDefinition
) -> list[Entry]:
    parameters = {
        "database": database_id,
        "schemas": [table.schema for table in definition.table_names],
        "names": [table.name for table in definition.table_names],
        "limit": MOST_TRIED,
        "most_bytes": MOST_BYTES,
    }
    try:
        async with state.transaction():
            await state.execute(f"SET LOCAL statement_timeout = {LOOK_MS}")
            cursor = await state.execute(_NEWEST, parameters, binary=True)
            return [*map(entry_of_row, await cursor.fetchall())]
    except psycopg.errors.QueryCanceled:
        raise TriggerkitError(
            f"the search for messages of {', '.join(definition.tables)} took more than "
            f"{LOOK_MS // 1000} s: the log has few of them among many others"
        ) from None


async def _rows(source: psycopg.AsyncConnection, table: TableName, publication: str) -> list[Entry]:
    """Return rows as a backfill would log them for the consumer."""
    reader = ChunkReader(source, table, None, most_rows=MOST_TRIED, publication=publication)
    await reader.open()
    try:
        chunk = await reader.read(None, await reader.last_place(nulls=False), nulls=False)
    except psycopg.errors.InsufficientPrivilege:
        raise may_not_read(table) from None
    read = Transaction(Lsn(0), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", 0)
    changes = (RowChange(*table, "read", row.key, row.record) for row in chunk.rows)
    return [entry_of(0, Pending(read, 0, change, consumer_id=_NONE_YET)) for change in changes]


async def _tried(consumer: Consumer, entries: Sequence[Entry]) -> list[Tried]:
    selection = Selection(consumer)
    verdicts = {n: selection.judge(e) for n, e in enumerate(entries) if selection.follows(e)}
    function = consumer.definition.filter
    if function is not None:
        left = [n for n, v in verdicts.items() if v.is_wanted and v.fault is None]
        verdicts |= await _called(function, selection, entries, left)
    return [
        Tried(entry, False, unwanted(consumer, entry)[1])
        if (verdict := verdicts.get(number)) is None
        else _outcome(consumer, entry, verdict)
        for number, entry in enumerate(entries)
    ]


async def _called(
    function: str, selection: Selection, entries: Sequence[Entry], left: Sequence[int]
) -> dict[int, Verdict]:
    """Return what the filter function says of the entries that are `left` to it."""
    functions = Functions(function, None)
    try:
        async with asyncio.timeout(CALLS_S):
            await functions.start()
            outcomes = await functions.call([selection.message(entries[n]) for n in left])
    except TimeoutError:
        raise ConfigurationError(
            f"it took more than {CALLS_S:g} s over {len(left)} messages, or ended its process "
            "again and again; without it the other comparisons can be tried"
        ) from None
    finally:
        await functions.end()
    return {n: verdict_of(outcome) for n, outcome in zip(left, outcomes, strict=True)}


def _outcome(consumer: Consumer, entry: Entry, verdict: Verdict) -> Tried:
    if not verdict.is_wanted:
        return Tried(entry, False, filtered_by(consumer))
    fault = verdict.fault
    return Tried(entry, True, None if fault is None else f"it would be parked: {fault.reason}")


def _consumer(definition: ConsumerDefinition, database: Database | None) -> Consumer:
    return Consumer(
        _NONE_YET,
        definition.name or "",
        definition,
        0,
        "active",
        0 if database is None else database.id,
        "" if database is None else database.name,
        0 if database is None else database.slot_epoch,
        "" if database is None else database.system_identifier,
        None,
    )
