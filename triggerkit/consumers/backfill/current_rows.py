"""The rows of given messages as they are now: as messages that a backfill could have made.

A message carries a place in the WAL, and a task may take one of a lower place for late. So the
place is one of which all that was committed before it is visible: never after a change whose row a
SELECT does not show yet, which a task would then take for the late one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import psycopg

from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.backfill.fault import may_not_read
from triggerkit.consumers.definition import TableName
from triggerkit.errors import TriggerkitError, UnknownRow
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.values import MalformedValue

#: Seconds that transactions may take which were open when the place was taken.
VISIBLE_S: Final = 30.0

#: How often to look, at first and at last.
LOOK_S: Final = 0.01
LOOK_MOST_S: Final = 0.5

_PLACE = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"

# A transaction of our own: whichever has committed before it was given a lower id. A snapshot's own
# end would not do, since one that is open may be beyond it.
_NEWEST = "SELECT txid_current()"
_ALL_VISIBLE = "SELECT txid_snapshot_xmin(txid_current_snapshot()) > %s"

_DATABASES = "SELECT name, slot_epoch, publication_name FROM triggerkit.databases"

#: A message, before it is JSON.
Message = dict[str, Any]


async def current_messages(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection, messages: Sequence[Message]
) -> list[Message]:
    """For each of `messages` one of its row as it is now: a `read`, or a `delete` with the key's
    columns where there is no such row any more. `source` is not in a transaction.

    Raises:
        TriggerkitError: one is of no row, or a transaction has been open for too long.
        UnknownRow: a key cannot be one of its table.
        PreflightFailed: a table is not there any more.
    """
    place = await visible_place(source)
    databases = await (await state.execute(_DATABASES)).fetchall()
    epochs: dict[str, int] = {name: epoch for name, epoch, _ in databases}
    publications = {name: publication for name, _, publication in databases}
    by_table: defaultdict[TableName, list[tuple[str, ...]]] = defaultdict(list)
    published: dict[TableName, str] = {}
    for message in messages:
        table = _table(message)
        by_table[table].append(_key(message))
        published[table] = publications.get(_database(message), PUBLICATION)
    found: dict[tuple[TableName, tuple[str, ...]], tuple[str, Any]] = {}
    for table, keys in by_table.items():
        reader = ChunkReader(source, table, None, publication=published[table])
        await reader.open()
        if any(len(key) != len(reader.key) for key in keys):
            raise TriggerkitError(f"the columns of the primary key of {table} have changed")
        try:
            found |= {(table, key): ("delete", reader.key_record(key)) for key in keys}
            found |= {(table, row.key): ("read", row.record) for row in await reader.rows_of(keys)}
        except (psycopg.DataError, MalformedValue):
            raise UnknownRow(
                f"the key does not fit the type of {table}'s {', '.join(reader.key)}"
            ) from None
        except psycopg.errors.InsufficientPrivilege:
            raise may_not_read(table) from None
    return [_message(m, *found[_table(m), _key(m)], place, epochs) for m in messages]


async def visible_place(source: psycopg.AsyncConnection) -> int:
    """Return the end of the WAL, once all that was committed before it is visible.

    Raises:
        TriggerkitError: a transaction has been open for too long.
    """
    place = await _one(source, _PLACE)
    newest, deadline, wait_s = await _one(source, _NEWEST), monotonic() + VISIBLE_S, LOOK_S
    while not await _one(source, _ALL_VISIBLE, newest):
        if monotonic() > deadline:
            raise TriggerkitError(
                f"a transaction has been writing for more than {VISIBLE_S:g} s, and its changes "
                "are not visible yet; end it (pg_stat_activity shows it), or try again"
            )
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LOOK_MOST_S)
    return int(place)


def _table(message: Message) -> TableName:
    metadata = message.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("record_pks"):
        raise TriggerkitError(
            "the payload is not a message about a row, so it has no current row; replay the run "
            "with its own payload"
        )
    return TableName(metadata["table_schema"], metadata["table_name"])


def _database(message: Message) -> str:
    database = message["metadata"].get("database")
    return str(database.get("name")) if isinstance(database, dict) else ""


def _key(message: Message) -> tuple[str, ...]:
    return tuple(map(str, message["metadata"]["record_pks"]))


def _message(old: Message, action: str, record: Any, place: int, epochs: dict[str, int]) -> Message:
    metadata = dict(old["metadata"])
    for name in ("xid", "unchanged"):
        metadata.pop(name, None)
    if isinstance(database := metadata.get("database"), dict):
        epoch = epochs.get(str(database.get("name")), database.get("epoch"))
        metadata["database"] = {**database, "epoch": epoch}
    metadata |= {
        "commit_timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "commit_lsn": place,
        "commit_idx": 0,
        "idempotency_key": f"{metadata.get('idempotency_key')}.current.{place}",
        "position": None,
        "transaction_annotations": None,
    }
    return {"record": record, "changes": None, "action": action, "metadata": metadata}


async def _one(connection: psycopg.AsyncConnection, query: str, *parameters: Any) -> Any:
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else row[0]
