"""Which columns are a relation's key in the version of it that the stream tells of.

The stream is behind the catalog: what it announces may since have been renamed, retyped, given
another key or dropped. So the key is remembered with the relation, by the numbers of its columns,
which no renaming changes; and today's catalog counts only where it is that of then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

from triggerkit.configuration.table_name import table_text
from triggerkit.replication.codec.messages import Relation


def full_xid(xid: int, reference: int) -> int:
    """Extend the 32-bit `xid` of a Begin message to the 64-bit id nearest to `reference`."""
    candidate = (reference & ~0xFFFFFFFF) | xid
    near = (candidate - 2**32, candidate, candidate + 2**32)
    return min((c for c in near if c >= 0), key=lambda c: abs(c - reference))


class Column(NamedTuple):
    """A column by its number in the table, which it keeps as long as it exists."""

    number: int
    name: str
    type_oid: int


@dataclass(frozen=True, slots=True)
class Version:
    """A relation at a time: its name, its columns, and the numbers of those of its primary key."""

    oid: int
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    is_partitioned: bool = False
    schema: str = ""
    table: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """A relation in today's catalog.

    `key_xid` is the transaction that made the key as it is. `are_whole` says that all partitions
    send whole old rows.
    """

    version: Version
    key_xid: int | None = None
    are_whole: bool = False


class News(NamedTuple):
    """A change of a relation, at a place of the WAL, by which those who follow its name lose some.

    `kind` is "table" when it has another name now, and "key" when its rows have other keys.
    """

    kind: Literal["table", "key"]
    before: Version
    after: Version
    lsn: int
    cause: str


class Versions(Protocol):
    """Remembers the last version of each relation, beyond the end of the process."""

    async def recall(self, oid: int) -> Version | None:
        """Return the last version that was remembered."""
        ...

    async def remember(self, version: Version, news: Sequence[News] = ()) -> None:
        """Keep `version` in place of the one before, and what was lost by the change."""
        ...


class InMemory:
    """Remembers until the process ends."""

    def __init__(self) -> None:
        self._versions: dict[int, Version] = {}
        self.news: list[News] = []

    async def recall(self, oid: int) -> Version | None:
        """Return the last version that was remembered."""
        return self._versions.get(oid)

    async def remember(self, version: Version, news: Sequence[News] = ()) -> None:
        """Keep `version` in place of the one before."""
        self.news += news
        self._versions[version.oid] = version


@dataclass(frozen=True, slots=True)
class Announced:
    """The version that was announced, and its key by the names that it has there.

    `until` is set when today's catalog has another key, which a transaction that comes later in
    the stream makes: from the one after it on, that key holds.
    """

    version: Version
    key_names: tuple[str, ...]
    until: int | None = None


def announced(
    relation: Relation,
    known: Version | None,
    present: Present | None,
    xid: int | None,
    *,
    is_again: bool,
) -> Announced:
    """Return which version `relation` is, announced in transaction `xid`.

    `known` is the version that was remembered, and `present` today's; `is_again` says that the
    relation was announced before on this connection.
    """
    key, until = _key(known, present, xid, is_again=is_again)
    columns = _numbered(relation, known, present)
    names = {column.number: column.name for column in columns}
    found = tuple(names[number] for number in key if number in names)
    if len(found) < len(key):
        # Not all of it is published. What the relation flags is then all there is to go by.
        found = ()
    flagged = {column.name for column in relation.columns if column.is_key}
    if relation.replica_identity == "d" and flagged and set(found) != flagged:
        # The default identity is the primary key, whatever the catalog came to say since.
        found = tuple(c.name for c in relation.columns if c.is_key)
        key = tuple(c.number for c in columns if c.name in flagged)
        until = None
    is_partitioned = (present.version if present else known or _NONE).is_partitioned
    version = Version(relation.oid, columns, key, is_partitioned, relation.schema, relation.table)
    return Announced(version, found, until)


#: Types whose values have the same text in each other.
_ALIKE = (frozenset({20, 21, 23}), frozenset({25, 1043}))


def news_of(before: Version, after: Version, lsn: int) -> Iterator[News]:
    """Yield what those who follow the relation lose between two versions of it."""
    old_name, name = table_text(before.schema, before.table), table_text(after.schema, after.table)
    if before.schema and old_name != name:
        yield News("table", before, after, lsn, f"the table that was {old_name} became {name}")
    if not before.key or not after.key:
        return
    if before.key != after.key:
        yield News("key", before, after, lsn, "rows have other keys: its primary key was changed")
        return
    types = {column.number: column.type_oid for column in before.columns}
    for column in after.columns:
        if column.number in after.key and not _is_alike(
            types.get(column.number, column.type_oid), column.type_oid
        ):
            cause = f"rows have other keys: the type of {column.name}, of its key, was changed"
            yield News("key", before, after, lsn, cause)


def _is_alike(one: int, other: int) -> bool:
    return one == other or any({one, other} <= alike for alike in _ALIKE)


_NONE = Version(0, (), ())


def _key(
    known: Version | None, present: Present | None, xid: int | None, *, is_again: bool
) -> tuple[tuple[int, ...], int | None]:
    """Return the key that holds in transaction `xid`, and until which transaction it does."""
    today = present.version.key if present is not None else ()
    if known is None or not known.key or known.key == today:
        return today, None
    if present is None or not today:
        return known.key, None
    made_by = present.key_xid
    if xid is None or made_by is None or xid > made_by or (xid == made_by and is_again):
        return today, None
    return known.key, made_by


def _numbered(
    relation: Relation, known: Version | None, present: Present | None
) -> tuple[Column, ...]:
    """Return the announced columns with their numbers, from the version most like it."""
    versions = [v for v in (known, present.version if present else None) if v is not None]
    for version in versions:
        numbers = _by_name(relation, version)
        if numbers is not None:
            return _columns(relation, numbers)
    for version in versions:
        # Some were renamed, and none was added or dropped.
        if len(version.columns) == len(relation.columns):
            return _columns(relation, [column.number for column in version.columns])
    found = {c.name: c.number for version in reversed(versions) for c in version.columns}
    # Numbers below zero stand for columns that nobody knows any more.
    unknown = range(-1, -len(relation.columns) - 1, -1)
    numbers = [found.get(c.name, other) for c, other in zip(relation.columns, unknown, strict=True)]
    return _columns(relation, numbers)


def _by_name(relation: Relation, version: Version) -> list[int] | None:
    """Return the numbers that the names have in `version`; None if they are not in that order."""
    found = {column.name: column.number for column in version.columns}
    numbers = [found.get(column.name, 0) for column in relation.columns]
    is_ordered = all(one < next_ for one, next_ in pairwise(numbers))
    return numbers if is_ordered and numbers and numbers[0] > 0 else None


def _columns(relation: Relation, numbers: list[int]) -> tuple[Column, ...]:
    return tuple(
        Column(number, column.name, column.type_oid)
        for number, column in zip(numbers, relation.columns, strict=True)
    )
