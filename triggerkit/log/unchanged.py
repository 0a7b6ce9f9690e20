"""Large values that an update leaves as they are: the WAL does not carry them, the log has them.

The version of the row before the update is looked up: in what is about to be appended, or else in
the table. It is there if the row was captured or read since its table's entries are to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import psycopg

from triggerkit.log.entry import Entry
from triggerkit.log.json_object import split_object
from triggerkit.log.trust import Since

#: Bytes of looked-up versions that are held at a time.
VERSIONS_BYTES = 8 * 1024 * 1024

#: The last version of each row before a position, by the index events_large: what is not in it has
#: no value so large that an update could leave it out (see `_may_be_large` in `log/entry.py`). The
#: hash is compared as a range, so that no other index has the order that is asked for: the primary
#: key's would be read from end to end.
_FIND = """
SELECT w.number, e.position, octet_length(e.record)
FROM unnest(%s::int[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[],
        %s::bigint[], %s::bigint[])
    AS w (number, partition, schema_name, table_name, key, before, since, since_lsn)
CROSS JOIN LATERAL (
    SELECT position, commit_lsn, record FROM triggerkit.events e
    WHERE e.database_id = %s AND e.partition = w.partition AND hashtext(e.key) >= hashtext(w.key)
      AND hashtext(e.key) <= hashtext(w.key)
      AND (octet_length(e.record) > 2000 OR e.unchanged IS NOT NULL OR e.fault IS NOT NULL)
      AND e.position < w.before AND e.position >= w.since
      AND e.key = w.key AND e.schema_name = w.schema_name AND e.table_name = w.table_name
    ORDER BY hashtext(e.key) DESC, e.position DESC LIMIT 1) e
WHERE e.record IS NOT NULL AND e.commit_lsn >= w.since_lsn
"""

_FETCH = """
SELECT w.number, convert_to(e.record, 'UTF8')
FROM unnest(%s::int[], %s::smallint[], %s::bigint[]) AS w (number, partition, position)
JOIN triggerkit.events e
    ON e.database_id = %s AND e.partition = w.partition AND e.position = w.position
"""


class _Wanted(NamedTuple):
    """The row whose last version before the position `before` an entry's values are in, if that is
    not from before `since` or `since_lsn`."""

    partition: int
    schema: str
    table: str
    key: str
    before: int
    since: int
    since_lsn: int


class _Stored(NamedTuple):
    """A version in the table."""

    partition: int
    position: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """The log of one database as the connection of its writer sees it, uncommitted rows included.

    `since` says for each entry, by its position, from where on others can be its source; one that
    it does not have has none.
    """

    connection: psycopg.AsyncConnection
    database_id: int
    since: Mapping[int, Since]

    async def complete(self, entries: list[Entry], before: Entry | None) -> int:
        """Put the missing values into `entries`, consecutive ones of an append, in their place.

        `before` is the entry before them. Returns how many were looked at: fewer than all when
        their values take too much memory; those are to be written before the others. What is not
        found stays named in `unchanged`.
        """
        within, wanted = _plan(entries, before, self.since)
        stored = await self._find(wanted)
        count, chosen = _bounded(entries, within, stored)
        records = await self._fetch(chosen)
        for number in range(count):
            if entries[number].unchanged:
                source = within.get(number)
                record = records.get(number) if source is None else entries[source].record
                if record is not None:
                    entries[number] = completed(entries[number], record)
        return count

    async def _find(self, wanted: dict[int, _Wanted]) -> dict[int, _Stored]:
        if not wanted:
            return {}
        columns = [list(wanted), *map(list, zip(*wanted.values(), strict=True))]
        cursor = await self.connection.execute(_FIND, [*columns, self.database_id])
        return {
            number: _Stored(wanted[number].partition, position, size_bytes)
            for number, position, size_bytes in await cursor.fetchall()
        }

    async def _fetch(self, chosen: dict[int, _Stored]) -> dict[int, bytes]:
        if not chosen:
            return {}
        parameters: Sequence[Any] = [
            list(chosen),
            [version.partition for version in chosen.values()],
            [version.position for version in chosen.values()],
            self.database_id,
        ]
        cursor = await self.connection.execute(_FETCH, parameters, binary=True)
        return dict(await cursor.fetchall())


def completed(entry: Entry, previous: bytes) -> Entry:
    """`entry` with those of its unchanged values that the record `previous` has, each exactly as it
    is there."""
    known = split_object(previous)
    own = split_object(entry.record or b"{}")
    found = {name for name in entry.unchanged if name in known}
    names = dict.fromkeys((*known, *own))
    record = {
        name: orjson.Fragment(own[name] if name in own else known[name])
        for name in names
        if name in own or name in found
    }
    rest = tuple(name for name in entry.unchanged if name not in found)
    return entry._replace(record=orjson.dumps(record), unchanged=rest)


def _plan(
    entries: Sequence[Entry], before: Entry | None, trusted: Mapping[int, Since]
) -> tuple[dict[int, int], dict[int, _Wanted]]:
    """Return where the version before each incomplete entry is: at a number in `entries`, or
    stored."""
    within: dict[int, int] = {}
    wanted: dict[int, _Wanted] = {}
    last: dict[tuple[str, str, str], int] = {}
    #: The number of the version that the entry before deleted.
    deleted: int | None = None
    for number, entry in enumerate(entries):
        row = entry.schema, entry.table, entry.key
        source = last.get(row)
        since = trusted.get(entry.position)
        if entry.unchanged and since is not None:
            origin: Entry | None = entry
            if entry.action == "insert":
                # The row got another key: its values are those of the row that was deleted for it.
                moved = entries[number - 1] if number else before
                origin, source = (moved, deleted) if _is_move(moved, entry) else (None, None)
            if source is not None:
                if (
                    entries[source].position >= since.position
                    and entries[source].commit_lsn >= since.lsn
                ):
                    within[number] = source
            elif origin is not None:
                wanted[number] = _Wanted(
                    origin.partition,
                    origin.schema,
                    origin.table,
                    origin.key,
                    origin.position,
                    *since,
                )
        deleted = last.get(row)
        last[row] = number
    return within, wanted


def _is_move(deleted: Entry | None, inserted: Entry) -> bool:
    return (
        deleted is not None
        and deleted.action == "delete"
        and (deleted.schema, deleted.table) == (inserted.schema, inserted.table)
        and deleted.commit_lsn == inserted.commit_lsn
        and deleted.commit_idx == inserted.commit_idx - 1
    )


def _bounded(
    entries: Sequence[Entry], within: dict[int, int], stored: dict[int, _Stored]
) -> tuple[int, dict[int, _Stored]]:
    """Return how many of `entries` may be completed at once, and the stored versions that they
    need."""
    sizes: dict[int, int] = {}
    total_bytes = 0
    for number, entry in enumerate(entries):
        size_bytes = len(entry.record or b"")
        if number in stored:
            size_bytes += stored[number].size_bytes
        elif number in within:
            size_bytes += sizes[within[number]]
        sizes[number] = size_bytes
        total_bytes += size_bytes
        if number and total_bytes > VERSIONS_BYTES:
            return number, {n: version for n, version in stored.items() if n < number}
    return len(entries), stored
