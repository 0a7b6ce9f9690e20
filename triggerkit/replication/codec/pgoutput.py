"""Decodes what the plugin pgoutput sends, protocol version 1, into `messages`.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error

from triggerkit.errors import MalformedMessage
from triggerkit.lsn import Lsn
from triggerkit.replication.codec.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    OldKind,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    Type,
    Update,
)
from triggerkit.replication.codec.tuples import read_tuple
from triggerkit.timestamps import iso_utc

#: How a row's message starts: tag, relation's OID, kind of its first tuple, number of columns.
ROW_HEADER = Struct("!cIcH")

_BEGIN = Struct("!xQqI")
_COMMIT = Struct("!xxQQq")
_ORIGIN = Struct("!xQ")
_OID = Struct("!xI")
_COLUMN = Struct("!Ii")
_COUNT = Struct("!H")
_TRUNCATE = Struct("!xIB")
_LOGICAL_MESSAGE = Struct("!xBQ")
_LENGTH = Struct("!I")
_NEW_TUPLE = Struct("!cH")

# A named tuple made without its Python-level __new__ costs half: there is a message for every row.
_make = tuple.__new__


def decode(payload: bytes | memoryview) -> Message:
    """Decode one message; the result shares no memory with `payload`.

    Raises:
        MalformedMessage: unknown, cut short, longer than its content, a column in binary, or a
            name that is not UTF-8. The bytes of columns are not looked at.
    """
    data = bytes(payload)
    try:
        decode_kind = _DECODERS.get(data[0], _decode_unknown)
        return decode_kind(data)
    except (error, LookupError, ValueError) as cause:
        raise MalformedMessage(f"a {_name(data)} of {len(data)} bytes is malformed") from cause


def commit_time(time_us: int) -> str:
    """Return the time that a Begin message gives as `iso_utc` does.

    Raises:
        MalformedMessage: outside the years 1 to 9999, where no transaction was committed.
    """
    try:
        return iso_utc(time_us)
    except OverflowError as cause:
        raise MalformedMessage(
            f"{time_us} µs from 2000-01-01 is not a valid commit time"
        ) from cause


def _name(data: bytes) -> str:
    return f"pgoutput message {chr(data[0])!r}" if data else "pgoutput message"


def _decode_unknown(data: bytes) -> Message:
    raise MalformedMessage(f"{_name(data)} is not part of protocol version 1")


def _expect_end(data: bytes, at: int) -> None:
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, of which {at} have a meaning")


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _decode_begin(data: bytes) -> Begin:
    final_lsn, commit_time_us, xid = _BEGIN.unpack(data)
    return Begin(Lsn(final_lsn), commit_time_us, xid)


def _decode_commit(data: bytes) -> Commit:
    commit_lsn, end_lsn, commit_time_us = _COMMIT.unpack(data)
    return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time_us)


def _decode_origin(data: bytes) -> Origin:
    (commit_lsn,) = _ORIGIN.unpack_from(data)
    name, at = _read_string(data, _ORIGIN.size)
    _expect_end(data, at)
    return Origin(Lsn(commit_lsn), name)


def _decode_relation(data: bytes) -> Relation:
    (oid,) = _OID.unpack_from(data)
    schema, at = _read_string(data, _OID.size)
    table, at = _read_string(data, at)
    identity = data[at : at + 1].decode()
    (count,) = _COUNT.unpack_from(data, at + 1)
    at += 1 + _COUNT.size
    columns = []
    for _ in range(count):
        column, at = _read_column(data, at)
        columns.append(column)
    _expect_end(data, at)
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def _read_column(data: bytes, at: int) -> tuple[RelationColumn, int]:
    is_key = data[at] & 1 == 1
    name, at = _read_string(data, at + 1)
    type_oid, type_modifier = _COLUMN.unpack_from(data, at)
    return RelationColumn(name, type_oid, type_modifier, is_key), at + _COLUMN.size


def _decode_type(data: bytes) -> Type:
    (oid,) = _OID.unpack_from(data)
    schema, at = _read_string(data, _OID.size)
    name, at = _read_string(data, at)
    _expect_end(data, at)
    return Type(oid, schema or "pg_catalog", name)


def _decode_insert(data: bytes) -> Insert:
    _, oid, kind, count = ROW_HEADER.unpack_from(data)
    new, at = read_tuple(data, ROW_HEADER.size, count)
    if kind != b"N" or at != len(data):
        raise ValueError("an insert is one new tuple")
    return _make(Insert, (oid, new))


def _decode_update(data: bytes) -> Update:
    _, oid, kind, count = ROW_HEADER.unpack_from(data)
    first, at = read_tuple(data, ROW_HEADER.size, count)
    if kind == b"N":
        _expect_end(data, at)
        return _make(Update, (oid, None, None, first))
    kind_of_next, count = _NEW_TUPLE.unpack_from(data, at)
    new, at = read_tuple(data, at + _NEW_TUPLE.size, count)
    if kind_of_next != b"N" or at != len(data):
        raise ValueError("an update ends by one new tuple")
    return Update(oid, _OLD_KINDS[kind], first, new)


def _decode_delete(data: bytes) -> Delete:
    _, oid, kind, count = ROW_HEADER.unpack_from(data)
    old, at = read_tuple(data, ROW_HEADER.size, count)
    _expect_end(data, at)
    return Delete(oid, _OLD_KINDS[kind], old)


def _decode_truncate(data: bytes) -> Truncate:
    count, options = _TRUNCATE.unpack_from(data)
    _expect_end(data, _TRUNCATE.size + 4 * count)
    oids = Struct(f"!{count}I").unpack_from(data, _TRUNCATE.size)
    return Truncate(oids, options & 1 == 1, options & 2 == 2)


def _decode_logical_message(data: bytes) -> LogicalMessage:
    flags, lsn = _LOGICAL_MESSAGE.unpack_from(data)
    prefix, at = _read_string(data, _LOGICAL_MESSAGE.size)
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    _expect_end(data, at + length)
    return LogicalMessage(flags & 1 == 1, Lsn(lsn), prefix, data[at:])


_OLD_KINDS: dict[bytes, OldKind] = {b"K": "K", b"O": "O"}
_DECODERS: dict[int, Callable[[bytes], Message]] = {
    ord("B"): _decode_begin,
    ord("C"): _decode_commit,
    ord("O"): _decode_origin,
    ord("R"): _decode_relation,
    ord("Y"): _decode_type,
    ord("I"): _decode_insert,
    ord("U"): _decode_update,
    ord("D"): _decode_delete,
    ord("T"): _decode_truncate,
    ord("M"): _decode_logical_message,
}
