"""An entry as a message of the log's topic, and back.

A position keeps its one meaning: the writer counts it for the whole database, and each message has
it. An offset is only where Kafka has the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

import orjson

from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import NOBODY, PARTITIONS, Entry

#: The form of the values. A reader refuses those that it does not know.
VERSION: Final = 1

#: The action of a mark: an entry of nobody, by which a partition without changes moves on.
MARK: Final = "mark"

#: The version, and the lengths of what follows: the facts as JSON, the record, the changes. Of what
#: is not there the length is -1.
_LENGTHS: Final = Struct(">BIii")

# Named tuples made without their Python-level __new__ cost half.
_make = tuple.__new__


class Unreadable(Exception):
    """A message of the log's topic is none of this version's log."""


class Placed(NamedTuple):
    """An entry where Kafka has it, and the epoch of the slot that captured it."""

    offset: int
    slot_epoch: int
    entry: Entry


def key_of(entry: Entry) -> bytes:
    """Return the key of an entry's message. Its partition is not told by Kafka's hash of it."""
    return f"{entry.schema}.{entry.table}:{entry.key}".encode()


def value_of(entry: Entry, slot_epoch: int) -> bytes:
    """Return the value of an entry's message: record and changes are in it as they are."""
    (
        position, _, schema, table, key, action, commit_lsn, commit_idx, commit_at, xid,
        record, changes, unchanged, consumer_id, backfill_id, fault, annotations,
    ) = entry  # fmt: skip
    facts = orjson.dumps(
        (
            position, slot_epoch, schema, table, key, action, commit_lsn, commit_idx, commit_at,
            xid, unchanged, consumer_id, backfill_id, fault, annotations,
        )
    )  # fmt: skip
    lengths = _LENGTHS.pack(
        VERSION,
        len(facts),
        -1 if record is None else len(record),
        -1 if changes is None else len(changes),
    )
    return b"".join((lengths, facts, record or b"", changes or b""))


def fitted(entry: Entry, slot_epoch: int, limit_bytes: int) -> tuple[bytes, bytes]:
    """Return key and value of an entry's message, which take no more than `limit_bytes` together.

    What would take more goes without its record, and then without whatever else is too large, with
    a fault: who would get it parks it. A key that is too large is one of its digest, by which later
    changes of the row wait for it as they do by the key itself.
    """
    key, value = key_of(entry), value_of(entry, slot_epoch)
    if len(key) + len(value) <= limit_bytes:
        return key, value
    for smaller in _smaller(entry, limit_bytes):
        key, value = key_of(smaller), value_of(smaller, slot_epoch)
        if len(key) + len(value) <= limit_bytes:
            return key, value
    raise ConfigurationError(
        f"the log's topic takes {limit_bytes} bytes of a message, which is less than an entry "
        "without its values; raise the topic's max.message.bytes"
    )


def _smaller(entry: Entry, limit_bytes: int) -> Iterator[Entry]:
    """Yield the entry with less and less of it."""
    entry = entry.without_record(limit_bytes)
    yield entry
    annotations_bytes = len((entry.annotations or "").encode())
    fault = f"annotations of {annotations_bytes} bytes are larger than the limit of {limit_bytes}"
    entry = entry._replace(annotations=None, fault=fault)
    yield entry
    key = entry.key.encode()
    fault = f"key of {len(key)} bytes is larger than the limit of {limit_bytes}"
    yield entry._replace(key=f'["sha256:{sha256(key).hexdigest()}"]', fault=fault)


def placed(value: bytes | None, partition: int, offset: int) -> Placed:
    """Return the entry of a message's value.

    Raises:
        Unreadable: it is no entry, or one of a later version.
    """
    try:
        assert value is not None
        version, facts_bytes, record_bytes, changes_bytes = _LENGTHS.unpack_from(value)
        assert version == VERSION
        at = _LENGTHS.size
        facts = orjson.loads(value[at : at + facts_bytes])
        (
            position, slot_epoch, schema, table, key, action, commit_lsn, commit_idx, commit_at,
            xid, unchanged, consumer_id, backfill_id, fault, annotations,
        ) = facts  # fmt: skip
    except Exception:
        where = f"partition {partition}, offset {offset}"
        raise Unreadable(
            f"a message of the log's topic is no entry that this version knows: {where}"
        ) from None
    at += facts_bytes
    end = at + max(0, record_bytes)
    record = None if record_bytes < 0 else value[at:end]
    changes = None if changes_bytes < 0 else value[end : end + changes_bytes]
    entry = _make(
        Entry,
        (
            position, partition, schema, table, key, action, commit_lsn, commit_idx, commit_at, xid,
            record, changes, tuple(unchanged), consumer_id, backfill_id, fault, annotations,
        ),
    )  # fmt: skip
    return Placed(offset, slot_epoch, entry)


def marks(first: int, commit_lsn: int, commit_at: str) -> list[Entry]:
    """Return a mark for each partition, from position `first` on."""
    return [
        Entry(
            first + partition, partition, "", "", "[]", MARK, commit_lsn, 0, commit_at, None,
            None, None, (), NOBODY,
        )
        for partition in range(PARTITIONS)
    ]  # fmt: skip
