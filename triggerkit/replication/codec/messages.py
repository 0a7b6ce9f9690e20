"""The messages of the logical decoding plugin pgoutput, protocol version 1, as values.

Column values stay the bytes that Postgres printed: a relation's decoders read them once, later.
Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from triggerkit.lsn import Lsn
from triggerkit.replication.codec.tuples import Tuple

#: What an update or delete tells of the old row: its key, or all of it (REPLICA IDENTITY FULL).
OldKind: TypeAlias = Literal["K", "O"]


class Begin(NamedTuple):
    """A transaction starts; `final_lsn` is the position of its commit record."""

    final_lsn: Lsn
    commit_time_us: int
    xid: int


class Commit(NamedTuple):
    """A transaction ends; confirming `end_lsn` means not to get it again."""

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time_us: int


class Origin(NamedTuple):
    """The transaction came from another server by replication."""

    commit_lsn: Lsn
    name: str


class RelationColumn(NamedTuple):
    """A column of a relation; `is_key` says that the replica identity contains it."""

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


class Relation(NamedTuple):
    """A table's columns from here on; `replica_identity` is as in `pg_class.relreplident`."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


class Type(NamedTuple):
    """The name of a type that is not built in."""

    oid: int
    schema: str
    name: str


class Insert(NamedTuple):
    """A new row."""

    relation_oid: int
    new: Tuple


class Update(NamedTuple):
    """A changed row; `old` is None where the replica identity did not change."""

    relation_oid: int
    old_kind: OldKind | None
    old: Tuple | None
    new: Tuple


class Delete(NamedTuple):
    """A row that is gone."""

    relation_oid: int
    old_kind: OldKind
    old: Tuple


class Truncate(NamedTuple):
    """Tables emptied by one statement."""

    relation_oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(NamedTuple):
    """A message of `pg_logical_emit_message`; outside of a transaction unless `transactional`."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


RowMessage: TypeAlias = Insert | Update | Delete
Message: TypeAlias = (
    RowMessage | Begin | Commit | Origin | Relation | Type | Truncate | LogicalMessage
)
