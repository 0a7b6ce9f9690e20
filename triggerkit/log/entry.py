"""An entry of the log, its partition and the row COPY stores it by."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import orjson

from triggerkit.change import RowChange, Transaction

#: Number of partitions of every log. The order of changes holds within a partition; an entry's
#: partition is a hash of its key, so this number never changes for an existing log.
PARTITIONS = 8

#: In place of a partition: all of them, in the order of their positions.
ALL_PARTITIONS = -1

#: What those who follow the log know an entry by: its table, by schema and name, or the number of
#: the consumer that alone gets it.
Subject = tuple[str, str] | int

#: In place of a consumer: nobody gets such an entry.
NOBODY = 0

#: What an entry takes besides its values: the tuple, its numbers and its key.
ENTRY_BYTES = 400

#: What an entry may take. A longer record is not kept: the entry says so in its place.
LARGEST_BYTES = 64 * 1024 * 1024


class Entry(NamedTuple):
    """One change in the log. `record` and `changes` are JSON; `key` is a JSON array of text.

    `changes` is None of an update that is known to have changed nothing, and a row's previous key
    of an insert, as `RowChange` has it.

    `consumer_id` and `backfill_id` are set for rows read by a backfill: only that consumer gets
    them. A truncate is of all partitions: it has an echo in each, of `NOBODY`, whose record is the
    position of the truncate. `commit_at` is ISO 8601, UTC, with microseconds. `fault` says why
    there is no record though there should be one: such an entry cannot be delivered. `annotations`
    is JSON.
    """

    position: int
    partition: int
    schema: str
    table: str
    key: str
    action: str
    commit_lsn: int
    commit_idx: int
    commit_at: str
    xid: int | None
    record: bytes | None
    changes: bytes | None
    unchanged: tuple[str, ...]
    consumer_id: int | None = None
    backfill_id: int | None = None
    fault: str | None = None
    annotations: str | None = None

    @property
    def size_bytes(self) -> int:
        """About the bytes this entry takes in memory."""
        return ENTRY_BYTES + len(self.record or b"") + len(self.changes or b"")

    @property
    def subject(self) -> Subject:
        """Return what those who follow the log know this by. An echo is of its table."""
        return self.consumer_id or (self.schema, self.table)

    @property
    def is_echo(self) -> bool:
        """Return whether this stands in its partition for a truncate, which is in one of them."""
        return self.consumer_id == NOBODY

    @property
    def truncate_position(self) -> int:
        """Return the position of the truncate that this is, or is the echo of."""
        return int(self.record or b"0") if self.is_echo else self.position

    @property
    def home_partition(self) -> int:
        """Return the partition of the row: an echo is in all of them."""
        return partition_of(self.schema, self.table, self.key)

    def echoes(self) -> list[Entry]:
        """Return the echoes of this truncate, one for each partition, at no position yet."""
        record = b"%d" % self.position
        return [
            self._replace(partition=partition, consumer_id=NOBODY, record=record)
            for partition in range(PARTITIONS)
        ]

    def without_record(self, limit_bytes: int = LARGEST_BYTES) -> Entry:
        """This entry, found to be larger than its log takes."""
        size_bytes = len(self.record or b"") + len(self.changes or b"")
        fault = f"record of {size_bytes} bytes is larger than the limit of {limit_bytes}"
        return self._replace(record=None, changes=None, unchanged=(), fault=fault)


class Pending(NamedTuple):
    """A change on its way into the log: everything but its position."""

    transaction: Transaction
    commit_idx: int
    change: RowChange
    xid: int | None = None
    consumer_id: int | None = None
    backfill_id: int | None = None


#: The columns of `triggerkit.events` by their types: one for each field of `Entry`, in its order.
COLUMNS = {
    "position": "bigint",
    "partition": "smallint",
    "schema_name": "text",
    "table_name": "text",
    "key": "text",
    "action": "text",
    "commit_lsn": "bigint",
    "commit_idx": "int",
    "commit_at": "timestamptz",
    "xid": "bigint",
    "record": "text",
    "changes": "text",
    "unchanged": "text[]",
    "consumer_id": "int",
    "backfill_id": "int",
    "fault": "text",
    "annotations": "text",
}

#: The columns that `copy_row` and `parameters` fill, in order.
COPY_COLUMNS = ", ".join(["database_id", *COLUMNS])

#: A row of `parameters` in a statement.
VALUES = "(%s::int, {})".format(", ".join(f"%s::{type_}" for type_ in COLUMNS.values()))

#: Where some fields are: all those that are stored in another form than an entry has them.
ACTION, COMMIT_AT, RECORD, CHANGES, UNCHANGED = map(
    Entry._fields.index, ("action", "commit_at", "record", "changes", "unchanged")
)

#: Records of a size between these may be of rows with a large value: an array, a range, a tsvector
#: or JSON takes up to ten times as much as its text does, and is stored apart from 2,000 bytes on.
_LEAST_LARGE, _SURELY_LARGE = 200, 2000

#: From this size on it may be any row, since columns of a fixed length take more than their text:
#: see `has_short` in `replication/sighting.py`.
_OFTEN_LARGE = 1600

#: What the texts of such values begin with.
_OPENING = b"[({'"

#: The columns after the record, as most entries have them.
_NOTHING_MORE = b"\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n"

# Named tuples made without their Python-level __new__ cost half: there is an entry for every row.
_make = tuple.__new__


@lru_cache(maxsize=65536)
def _table_crc(schema: str, table: str) -> int:
    return crc32(f"{schema}.{table}:".encode())


def partition_of(schema: str, table: str, key: str) -> int:
    """Return the partition of a row's changes: the same in every process, whatever Python's hash
    seed."""
    return crc32(key.encode(), _table_crc(schema, table)) % PARTITIONS


def entry_of(position: int, pending: Pending) -> Entry:
    """Give a pending change its position, partition and JSON."""
    transaction, commit_idx, change, xid, consumer_id, backfill_id = pending
    schema, table, action, key_values, record, changes, unchanged, fault, _ = change
    key = orjson.dumps(key_values)
    return _make(
        Entry,
        (
            position,
            crc32(key, _table_crc(schema, table)) % PARTITIONS,
            schema,
            table,
            key.decode(),
            action,
            int(transaction.commit_lsn),
            commit_idx,
            transaction.commit_at,
            xid,
            None if record is None else _exact(orjson.dumps(record)),
            None if changes is None else _exact(orjson.dumps(changes)),
            unchanged,
            consumer_id,
            backfill_id,
            fault,
            transaction.annotations,
        ),
    )


def _exact(value: bytes) -> bytes:
    # What orjson returns holds a kilobyte and more, whatever it is long; thousands are kept.
    return b"%b" % value


def copy_row(
    database_id: int, entry: Entry, *, is_marked: bool = False
) -> tuple[bytes, bytes, bytes]:
    """Return the entry as a line of COPY's text format, in pieces: the record is not copied.

    One that `is_marked` is among those that may have large values, whatever it looks like.

    Source: PostgreSQL documentation, "COPY", Text Format.
    """
    (
        position, partition, schema, table, key, action, commit_lsn, commit_idx, commit_at, xid,
        record, changes, unchanged, consumer_id, backfill_id, fault, annotations,
    ) = entry  # fmt: skip
    head = (
        f"{database_id}\t{position}\t{partition}\t{_table_columns(schema, table)}\t{_text(key)}\t"
        f"{action}\t{commit_lsn}\t{commit_idx}\t{commit_at}\t{_number(xid)}\t"
    )
    is_plain = consumer_id is None and backfill_id is None and fault is None and annotations is None
    listed = (
        _array(unchanged) if unchanged else "{}" if is_marked or _may_be_large(record) else "\\N"
    )
    if is_plain and changes is None and listed == "\\N":
        return head.encode(), _json(record), _NOTHING_MORE
    tail = (
        f"\t{listed}\t{_number(consumer_id)}\t{_number(backfill_id)}"
        f"\t{_optional(fault)}\t{_optional(annotations)}\n"
    )
    return head.encode(), _json(record), b"\t%b%b" % (_json(changes), tail.encode())


def parameters(database_id: int, entry: Entry, *, is_marked: bool = False) -> tuple[object, ...]:
    """Return the entry as values of `COPY_COLUMNS`, for a statement; `is_marked` as in
    `copy_row`."""
    values: list[object] = list(entry)
    values[RECORD] = None if entry.record is None else entry.record.decode()
    values[CHANGES] = None if entry.changes is None else entry.changes.decode()
    is_marked = is_marked or _may_be_large(entry.record)
    values[UNCHANGED] = list(entry.unchanged) or ([] if is_marked else None)
    return database_id, *values


def _may_be_large(record: bytes | None) -> bool:
    """Return whether a later update may leave out a value of this record though its text is short.

    Such an entry has an empty list in `unchanged`: by that the index `events_large` has it.
    """
    if record is None or not _LEAST_LARGE <= len(record) <= _SURELY_LARGE:
        return False
    if len(record) >= _OFTEN_LARGE:
        return True
    # Most records have none of these but their own brace, which is told in one pass. One byte is
    # looked for in a tenth of the time of two.
    if len(record.translate(None, _OPENING)) >= len(record) - 1:
        return False
    return (
        (b"[" in record and (b":[" in record or b':"[' in record))
        or (b"(" in record and b':"(' in record)
        or (b"'" in record and b":\"'" in record)
        or (record.find(b"{", 1) > 0 and (b":{" in record or b':"{' in record))
    )


def _number(value: int | None) -> int | str:
    return "\\N" if value is None else value


@lru_cache(maxsize=65536)
def _table_columns(schema: str, table: str) -> str:
    return f"{_text(schema)}\t{_text(table)}"


def _json(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    return value.replace(b"\\", b"\\\\") if b"\\" in value else value


def _optional(value: str | None) -> str:
    return "\\N" if value is None else _text(value)


def _text(value: str) -> str:
    if "\\" in value or "\t" in value or "\n" in value or "\r" in value:
        value = value.replace("\\", "\\\\").replace("\t", "\\t")
        value = value.replace("\n", "\\n").replace("\r", "\\r")
    return value


def _array(names: tuple[str, ...]) -> str:
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return _text("{" + ",".join(f'"{name}"' for name in quoted) + "}")
