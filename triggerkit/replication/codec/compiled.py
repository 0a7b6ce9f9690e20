"""A relation as the stream announced it, compiled to turn its rows into changes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from triggerkit.change import Action, Key, Record, RowChange
from triggerkit.errors import MalformedMessage
from triggerkit.replication.codec.messages import (
    Delete,
    Insert,
    Relation,
    RowMessage,
    Truncate,
    Update,
)
from triggerkit.replication.codec.old_rows import OldRow, OldRows, Partitions, only
from triggerkit.replication.codec.pgoutput import ROW_HEADER
from triggerkit.replication.codec.tuples import UNCHANGED_TOAST, Tuple, read_record
from triggerkit.values import Decoder, decode_integer, decode_text, decoder_for

#: Stands for NULL in a key. Only tables without a primary key have it: those published under
#: REPLICA IDENTITY FULL, whose key is then the whole row.
NULL_IN_KEY: Final = "\\N"

_KEYLESS: Final = (
    "the primary key of its table is not published: it has a generated column, or one that the "
    "publication's column list leaves out"
)

_ACTIONS: Final[dict[type, Action]] = {Insert: "insert", Update: "update", Delete: "delete"}

_KEYLESS_DELETE: Final = (
    "the delete does not carry the primary key, which the REPLICA IDENTITY of its partition lacks"
)

_NO_DECODERS: Mapping[int, Decoder] = MappingProxyType({})
_HEADER_SIZE: Final = ROW_HEADER.size

#: What `read_record` uses instead: of what Postgres prints it makes the same, with fewer checks.
_QUICK_DECODERS: dict[Decoder, Decoder | None] = {decode_integer: int, decode_text: None}

# A named tuple made without its Python-level __new__ costs half: there is a change for every row.
_make = tuple.__new__


class _Undecodable(Exception):
    """A column's value does not fit its type, or the stream lacks it though it is of the key."""

    def __init__(self, column: str) -> None:
        self.fault = f"the value of column {column!r} cannot be decoded; look at the row by its key"


class CompiledRelation:
    """Turns the rows of one relation into changes, by decoders chosen once.

    `primary_key` comes from the catalog, since under REPLICA IDENTITY FULL the stream flags every
    column. Where the stream does not send all of it with a delete (REPLICA IDENTITY USING INDEX,
    or no primary key), the key is what the stream flags: see `key_columns`.
    `decoders` has those of types known only from the catalog, such as domains and arrays of enums,
    by their OID. `partitions` is given for a partitioned table. One that `lacks_key`, since that is
    not published, has a fault in place of each row.
    """

    def __init__(
        self,
        relation: Relation,
        primary_key: tuple[str, ...] = (),
        decoders: Mapping[int, Decoder] = _NO_DECODERS,
        partitions: Partitions | None = None,
        *,
        lacks_key: bool = False,
    ) -> None:
        self.oid: Final = relation.oid
        self.schema: Final = relation.schema
        self.table: Final = relation.table
        self.columns: Final = tuple(column.name for column in relation.columns)
        #: The OIDs of their types.
        self.types: Final = tuple(column.type_oid for column in relation.columns)
        self.key_columns: Final = _key_columns(relation, primary_key)
        self._fields = tuple(
            (
                column.name,
                decoders.get(column.type_oid) or decoder_for(column.type_oid),
            )
            for column in relation.columns
        )
        self._key_at = tuple(self.columns.index(name) for name in self.key_columns)
        self._quick_fields = tuple(
            (name, _QUICK_DECODERS.get(decode_value, decode_value))
            for name, decode_value in self._fields
        )
        self._single_key = self.key_columns[0] if len(self.key_columns) == 1 else None
        self._lacks_key = lacks_key
        self._old_rows = OldRows(
            [column.is_key for column in relation.columns], self._key_at, partitions
        )

    def changes(self, message: RowMessage | Truncate) -> list[RowChange]:
        """Return the changes of this relation's rows that `message` tells of, in order.

        An update of the key gives two: the delete of the old row and the insert of the new one.
        Other updates under REPLICA IDENTITY FULL have the changed columns' old values, and their
        unchanged TOASTed values are those of the old row. A row with a value that does not fit its
        column's type, or is not UTF-8, has a `fault` and no record.

        Raises:
            MalformedMessage: the number of columns is not the relation's.
        """
        if self._lacks_key and not isinstance(message, Truncate):
            action: Action = _ACTIONS[type(message)]
            return [RowChange(self.schema, self.table, action, (), None, None, (), _KEYLESS)]
        if isinstance(message, Insert):
            change = self._change("insert", message.new)
            return [change._replace(is_let_in=bool(change.unchanged))]
        if isinstance(message, Update):
            if message.old is None:
                return [self._change("update", message.new, {})]
            return self._update_with_old(message)
        if isinstance(message, Delete):
            self._expect_all_columns(message.old)
            return [self._delete(self._old_rows.read(message.old, message.old_kind))]
        return [RowChange(self.schema, self.table, "truncate", (), None)]

    def new_row_headers(self) -> dict[bytes, Action]:
        """Return how the messages start that `new_row` reads, and what they are.

        There are none when the key's text cannot be told from a decoded record (a timestamp).
        """
        if self._lacks_key:
            return {}
        if not all(self._fields[at][1] in (decode_integer, decode_text) for at in self._key_at):
            return {}
        count = len(self.columns)
        return {
            ROW_HEADER.pack(b"I", self.oid, b"N", count): "insert",
            ROW_HEADER.pack(b"U", self.oid, b"N", count): "update",
        }

    def new_row(self, action: Action, payload: bytes) -> RowChange | None:
        """Return what `changes` gives for a message that starts by `new_row_headers`, in half the
        time.

        None where `changes` raises an error or looks closer.
        """
        try:
            record, unchanged = read_record(payload, _HEADER_SIZE, self._quick_fields)
            key = self._key_in(record)
        except (LookupError, ValueError):
            return None
        if unchanged and action == "insert":
            return None
        changes: Record | None = None if action == "insert" else {}
        row = (self.schema, self.table, action, key, record, changes, unchanged, None, False)
        return _make(RowChange, row)

    def _update_with_old(self, message: Update) -> list[RowChange]:
        assert message.old is not None
        assert message.old_kind is not None
        self._expect_all_columns(message.old)
        self._expect_all_columns(message.new)
        row = self._old_rows.read(message.old, message.old_kind)
        if row is None:
            return [self._change("update", message.new, {})]
        old, is_whole = row
        # No unchanged value was NULL.
        new = [
            was if value is UNCHANGED_TOAST and was is not None else value
            for was, value in zip(old, message.new, strict=True)
        ]
        if any(old[at] != new[at] for at in self._key_at):
            deleted = self._delete(row)
            return [deleted, self._change("insert", new)._replace(changes=deleted.key)]
        changed = [is_whole and was != value for was, value in zip(old, new, strict=True)]
        if is_whole and not any(changed):
            return [self._change("update", new)]
        try:
            changes = self._record(only(changed, old))
        except _Undecodable as undecodable:
            return [self._faulty("update", new, undecodable.fault)]
        return [self._change("update", new, changes)]

    def _delete(self, row: OldRow | None) -> RowChange:
        if row is None:
            return RowChange(self.schema, self.table, "delete", (), None, None, (), _KEYLESS_DELETE)
        change = self._change("delete", row.values)
        return change if row.is_whole else change._replace(unchanged=())

    def _change(self, action: Action, values: Tuple, changes: Record | None = None) -> RowChange:
        try:
            record = self._record(values)
            key = self._key(values)
        except _Undecodable as undecodable:
            return self._faulty(action, values, undecodable.fault)
        unchanged: tuple[str, ...] = ()
        if len(record) != len(self.columns):
            unchanged = tuple(name for name in self.columns if name not in record)
        return RowChange(self.schema, self.table, action, key, record, changes, unchanged)

    def _faulty(self, action: Action, values: Tuple, fault: str) -> RowChange:
        """Return a change without its record, by its key as far as the stream sent that."""
        known = [at for at in self._key_at if values[at] is not UNCHANGED_TOAST]
        key = tuple([self._key_text(values, at) for at in known])
        return RowChange(self.schema, self.table, action, key, None, None, (), fault)

    def _record(self, values: Tuple) -> Record:
        """Return the decoded `values`, without those that are `UNCHANGED_TOAST`."""
        self._expect_all_columns(values)
        try:
            return {
                name: None if value is None else decode_value(value)
                for (name, decode_value), value in zip(self._fields, values, strict=True)
                if value is not UNCHANGED_TOAST
            }
        except ValueError:
            raise _Undecodable(self._refused(values)) from None

    def _key_in(self, record: Record) -> Key:
        """Return the key by its decoded columns, which print as Postgres does."""
        name = self._single_key
        if name is not None and (value := record[name]) is not None:
            return (str(value),)
        values = [record[name] for name in self.key_columns]
        if None in values:
            raise LookupError("a null in a key")
        return tuple(map(str, values))

    def _key(self, values: Tuple) -> Key:
        return tuple([self._key_text(values, at) for at in self._key_at])

    def _key_text(self, values: Tuple, at: int) -> str:
        value = values[at]
        if value is None:
            return NULL_IN_KEY
        if value is UNCHANGED_TOAST:
            raise _Undecodable(self.columns[at])
        return value.decode(errors="backslashreplace")

    def _expect_all_columns(self, values: Tuple) -> None:
        if len(values) != len(self.columns):
            raise MalformedMessage(
                f"a row of {self.schema}.{self.table} has {len(values)} columns, "
                f"its relation {len(self.columns)}"
            )

    def _refused(self, values: Tuple) -> str:
        """Return the name of the column whose decoder refuses its value."""
        for (name, decode_value), value in zip(self._fields, values, strict=True):
            try:
                if isinstance(value, bytes):
                    decode_value(value)
            except ValueError:
                return name
        raise AssertionError("a decoder refuses a value only sometimes")


def _key_columns(relation: Relation, primary_key: tuple[str, ...]) -> tuple[str, ...]:
    flagged = tuple(column.name for column in relation.columns if column.is_key)
    sent_with_deletes = flagged or tuple(column.name for column in relation.columns)
    if primary_key and set(primary_key) <= set(sent_with_deletes):
        return primary_key
    return flagged
