"""From where on entries of a table may be the source of a value that an update leaves out.

Entries name their table only, and another may have had that name; columns may have been renamed,
and rows changed by what no message tells of. So for each relation the log keeps what was last seen
of it, and two places: no entry before either is a source. Both only move forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from triggerkit.log.entry import Entry
from triggerkit.replication.sighting import Sighting, facts_of, has_same_rows

_LOAD = """
SELECT schema_name, table_name, columns, key, facts, since_position, since_lsn
FROM triggerkit.sightings WHERE database_id = %s AND oid = %s
"""

_SAVE = """
INSERT INTO triggerkit.sightings (database_id, oid, schema_name, table_name, columns, key, facts,
    since_position, since_lsn)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (database_id, oid)
"""

_REPLACE = f"""{_SAVE} DO UPDATE SET schema_name = excluded.schema_name,
    table_name = excluded.table_name, columns = excluded.columns, key = excluded.key,
    facts = excluded.facts, since_position = excluded.since_position,
    since_lsn = excluded.since_lsn
"""

#: What the stream has seen is not replaced: it may be behind the catalog.
_NOTE = f"{_SAVE} DO NOTHING"

#: A name is of one relation.
_PART = """
DELETE FROM triggerkit.sightings
WHERE database_id = %s AND schema_name = %s AND table_name = %s AND oid <> %s
"""


class Since(NamedTuple):
    """An entry before either of these, a position and a commit's LSN, is no source."""

    position: int
    lsn: int


@dataclass(slots=True)
class _Known:
    seen: Sighting
    since: Since


class Trust:
    """What was seen of the relations of one database's log, as its writer goes on.

    Loaded from the state relation by relation, and kept there by `save`, in the transaction that
    appends the entries which it is about.
    """

    def __init__(self, connection: psycopg.AsyncConnection, database_id: int) -> None:
        self._connection = connection
        self._database_id = database_id
        self._by_name: dict[tuple[str, str], _Known] = {}
        self._by_oid: dict[int, _Known] = {}
        self._unsaved: set[int] = set()
        #: Tables that have values of short rows apart, or had.
        self._short: set[tuple[str, str]] = set()

    @property
    def is_saved(self) -> bool:
        """Return whether there is nothing to save."""
        return not self._unsaved

    def since(self, name: tuple[str, str]) -> Since | None:
        """Return from where on entries of the table `name` are sources; None: none is."""
        known = self._by_name.get(name)
        return None if known is None else known.since

    def marks(self, entry: Entry) -> bool:
        """Return whether `entry` is found only if it is marked: short, of a table that has values
        of short rows apart. An older one that is long would be taken for the last."""
        return bool(self._short) and (entry.schema, entry.table) in self._short

    async def see(self, seen: Sighting, position: int) -> None:
        """Take in what is seen of a relation whose changes come from `position` on."""
        known = await self._known(seen.oid)
        if known is None:
            await self._own(seen, Since(position, seen.lsn))
            return
        before, since = known.seen, known.since
        rows = has_same_rows(before.facts, seen)
        if rows == "now" or (before.columns, before.key) != (seen.columns, seen.key):
            since = since._replace(position=position)
        if rows == "unknown":
            since = since._replace(lsn=seen.lsn)
        if before.name != seen.name:
            await self._own(seen, since._replace(position=position))
        elif since != known.since or before.facts != seen.facts:
            self._put(seen, since)
        else:
            known.seen = seen

    async def read(self, seen: Sighting, first: int, end: int) -> None:
        """Take in what a backfill saw, whose rows have the positions from `first` to before `end`.

        It may have seen what is not so any more at its place in the log, or not yet: then its rows
        are no sources.
        """
        known = await self._known(seen.oid)
        other = self._by_name.get(seen.name)
        if seen.facts.has_short:
            # They may have been written before this was known, and are not marked.
            first = end
        if known is None and other is None:
            await self._own(seen, Since(first, seen.lsn))
        elif known is None or known is not other:
            if other is not None:
                self._put(other.seen, other.since._replace(position=end))
        elif seen.facts.has_short or (
            (known.seen.columns, known.seen.key) != (seen.columns, seen.key)
        ):
            self._put(known.seen, known.since._replace(position=end))
        elif has_same_rows(known.seen.facts, seen) != "as before":
            if seen.lsn > known.seen.lsn:
                self._put(seen, known.since._replace(lsn=seen.lsn))
            else:
                self._put(known.seen, known.since._replace(position=end))

    def end(self, name: tuple[str, str], position: int) -> None:
        """Note that the table `name` was emptied: what is before `position` is of the past."""
        known = self._by_name.get(name)
        if known is not None:
            self._put(known.seen, known.since._replace(position=position))

    async def save(self) -> None:
        """Keep in the state what was seen, on the connection's present transaction."""
        for known in [self._by_oid[oid] for oid in self._unsaved if oid in self._by_oid]:
            values = _values(self._database_id, known.seen, known.since)
            await self._connection.execute(_REPLACE, values)
        self._unsaved.clear()

    async def _known(self, oid: int) -> _Known | None:
        known = self._by_oid.get(oid)
        if known is not None:
            return known
        cursor = await self._connection.execute(_LOAD, [self._database_id, oid])
        row = await cursor.fetchone()
        if row is None:
            return None
        schema, table, columns, key, facts, *since = row
        listed = tuple((name, type_oid) for name, type_oid in columns)
        seen = Sighting(oid, (schema, table), listed, tuple(key), facts_of(*facts), 0)
        if seen.name in self._by_name:
            # Another has the name since.
            return None
        known = self._by_name[seen.name] = self._by_oid[oid] = _Known(seen, Since(*since))
        self._note_short(seen)
        return known

    async def _own(self, seen: Sighting, since: Since) -> None:
        """Keep `seen` as the relation of its name, which no other is any more."""
        before, other = self._by_oid.get(seen.oid), self._by_name.get(seen.name)
        if before is not None:
            self._by_name.pop(before.seen.name, None)
        if other is not None:
            self._by_oid.pop(other.seen.oid, None)
        # At once, whatever becomes of the transaction: what is not known is not trusted.
        await self._connection.execute(_PART, [self._database_id, *seen.name, seen.oid])
        self._put(seen, since)

    def _put(self, seen: Sighting, since: Since) -> None:
        self._by_name[seen.name] = self._by_oid[seen.oid] = _Known(seen, since)
        self._unsaved.add(seen.oid)
        self._note_short(seen)

    def _note_short(self, seen: Sighting) -> None:
        if seen.facts.has_short:
            self._short.add(seen.name)


async def note_sighting(state: psycopg.AsyncConnection, database_id: int, seen: Sighting) -> None:
    """Keep what is seen of a table that is captured from now on, unless its stream has seen it."""
    await state.execute(_NOTE, _values(database_id, seen, Since(0, seen.lsn)))


def _values(database_id: int, seen: Sighting, since: Since) -> list[object]:
    shape = Jsonb(seen.columns), Jsonb(seen.key), Jsonb(seen.facts)
    return [database_id, seen.oid, *seen.name, *shape, *since]
