"""A consumer as it is stored, and which entries of the log it gets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.log.entry import Entry, Subject
from triggerkit.log.json_object import read_object, split_object

# The partition of the one cursor of a consumer that is ordered as a whole.
from triggerkit.log.reader import ALL_PARTITIONS as ALL_PARTITIONS
from triggerkit.message import row_text


@dataclass(frozen=True, slots=True)
class BackfillSpan:
    """The positions during which a table was being read for a consumer; `last` None: still is."""

    table: tuple[str, str]
    first: int
    last: int | None

    def covers(self, entry: Entry) -> bool:
        """Return whether `entry` was logged while its table was being read."""
        return (
            self.first <= entry.position
            and (self.last is None or entry.position <= self.last)
            and self.table == (entry.schema, entry.table)
        )


class PastSlot(NamedTuple):
    """A slot of the database that another one took the place of: it captured what is in the log
    before `next_position`, from that of the one before it on."""

    next_position: int
    epoch: int
    system_identifier: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer, the database it follows and the endpoint it pushes to, None if it is pulled or
    makes runs directly."""

    id: int
    name: str
    definition: ConsumerDefinition
    replay_epoch: int
    state: str
    database_id: int
    database_name: str
    database_epoch: int
    system_identifier: str
    target: SealedEndpoint | None
    database_host: str | None = None
    spans: tuple[BackfillSpan, ...] = ()
    #: In the order of their positions.
    past_slots: tuple[PastSlot, ...] = ()
    #: What it follows of the log: its tables, and what is for it alone.
    subjects: frozenset[Subject] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = [TableName.parse(text) for text in self.definition.tables]
        subjects = frozenset([self.id, *(tuple(table) for table in tables)])
        object.__setattr__(self, "subjects", subjects)

    @property
    def is_pulled(self) -> bool:
        """Return whether somebody has to ask for its messages."""
        return self.target is None and not self.definition.has_own_way

    def wants(self, entry: Entry) -> bool:
        """Return whether `entry` is for this consumer, its filters left aside."""
        definition = self.definition
        if entry.consumer_id is not None:
            return entry.consumer_id == self.id
        if (entry.schema, entry.table) not in self.subjects:
            return False
        actions, columns = definition.actions, definition.when_changed
        if actions is not None and entry.action not in actions:
            return entry.action in ("insert", "update") and self._is_being_read(entry)
        if entry.action != "update" or columns is None or _changed(entry, columns):
            return True
        return self._is_being_read(entry)

    def stops_at(self, entry: Entry) -> bool:
        """Return whether `entry` is a truncate that the consumer gets, or its echo: what is before
        it in all partitions is done first, and then the truncate, before what is behind it."""
        if entry.action != "truncate":
            return False
        if not entry.is_echo:
            return self.wants(entry)
        return self.definition.group_by is None and self.wants(entry._replace(consumer_id=None))

    @property
    def slot_position(self) -> int:
        """Return the first position that the database's present slot can have filled."""
        return self.past_slots[-1].next_position if self.past_slots else 0

    def at(self, position: int) -> Consumer:
        """Return the consumer as the entry at `position` tells of its database: with the slot that
        captured it."""
        for past in self.past_slots:
            if position < past.next_position:
                epoch, system = past.epoch, past.system_identifier
                return replace(self, database_epoch=epoch, system_identifier=system, past_slots=())
        return self

    @property
    def is_by_kind(self) -> bool:
        """Return whether a change's table and action alone say that it is wanted."""
        wanted = self.definition
        is_looked_at = (
            wanted.filters
            or wanted.filter
            or wanted.when_changed is not None
            or wanted.group_by is not None
        )
        return not (is_looked_at or (wanted.actions is not None and self.spans))

    def key_of(self, entry: Entry) -> str:
        """Return the key that keeps messages in order: the row, or the values of the columns it
        groups by."""
        columns = self.definition.group_by
        if columns is None:
            return row_text(entry.schema, entry.table, entry.key)
        return group_key(entry.record or b"{}", columns)

    def lacks_group(self, entry: Entry) -> str | None:
        """Return why nobody knows what keeps a message in order; None where that is known.

        Deletes and truncates are ordered by what they have.
        """
        columns = self.definition.group_by
        if columns is None or entry.record is None or entry.action == "delete":
            return None
        known = read_object(entry.record)
        for name in columns:
            if name in entry.unchanged:
                return f"the message has no column {name!r} to group by: its value is not known"
            if name not in known:
                return (
                    f"the message has no column {name!r} to group by: was it renamed or dropped? "
                    "correct group_by, and run: triggerkit apply"
                )
        return None

    def _is_being_read(self, entry: Entry) -> bool:
        """Return whether the table was being read when `entry` was logged: its row may have lost
        its place in the backfill to this change, which is then the only bearer of the row."""
        return any(span.covers(entry) for span in self.spans)


def group_key(record: bytes, columns: tuple[str, ...]) -> str:
    """Return what keeps the messages of a group in order: the values of `columns`."""
    try:
        values: dict[str, Any] = orjson.loads(record)
        return orjson.dumps([values.get(name) for name in columns]).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        members = split_object(record)
        return "[" + ",".join(_key_part(members.get(name, b"null")) for name in columns) + "]"


def _key_part(value: bytes) -> str:
    """Return a value as a key has it; one that cannot be read as its JSON text."""
    with contextlib.suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        value = orjson.dumps(orjson.loads(value))
    return value.decode()


def _changed(entry: Entry, columns: tuple[str, ...]) -> bool:
    if entry.changes is None:
        return entry.fault is not None
    # Without the old values in the WAL nothing says that the columns did not change.
    changes = read_object(entry.changes)
    if not changes or not changes.keys().isdisjoint(columns):
        return True
    # Nor does anything of a column that was renamed or dropped.
    known = read_object(entry.record or b"{}").keys() | set(entry.unchanged)
    return not known.issuperset(columns)
