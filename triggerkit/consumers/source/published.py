"""Looks whether what consumers follow is published as it was; what is not is a gap of theirs.

What was published is known by OIDs, not by names: the relation, and its membership in the
publication, with who last changed that. A table that was made anew, swapped, moved, or taken out
and put back is another, and what was written between the last look at the one and the first at the
other may be missing. So may what was written while the publication told less of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import NamedTuple

import psycopg

from triggerkit.configuration.table_name import TableName, table_text
from triggerkit.consumers.gap import LostChanges, mark_lost
from triggerkit.replication.publication.membership import (
    Member,
    brought_rows,
    present_names,
    read_members,
    wal_end,
)

#: One look at a time, of whichever process.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('triggerkit.published'), %s)"

_FOLLOWED = """
SELECT t.name FROM triggerkit.consumers c
CROSS JOIN LATERAL jsonb_array_elements_text(c.definition -> 'tables') t (name)
WHERE c.database_id = %(database)s
UNION
SELECT triggerkit.table_text(schema_name, table_name) FROM triggerkit.topics
WHERE enabled AND database_id = %(database)s
"""

_KNOWN = """
SELECT schema_name, table_name, relation_oid, membership, partitions, lost_at IS NOT NULL,
    publication_xmin, membership_xmin
FROM triggerkit.published WHERE database_id = %s
"""

_KEEP = """
INSERT INTO triggerkit.published
    (database_id, schema_name, table_name, relation_oid, membership, partitions,
     publication_xmin, membership_xmin)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (database_id, schema_name, table_name) DO UPDATE
SET relation_oid = excluded.relation_oid, membership = excluded.membership,
    partitions = excluded.partitions, lost_at = NULL,
    publication_xmin = excluded.publication_xmin, membership_xmin = excluded.membership_xmin
"""

_LOSE = """
UPDATE triggerkit.published SET lost_at = clock_timestamp()
WHERE database_id = %s AND schema_name = %s AND table_name = %s
"""

_FORGET = """
DELETE FROM triggerkit.published WHERE database_id = %s AND schema_name = %s AND table_name = %s
"""

_LOOKED_BEFORE = "SELECT looked_lsn FROM triggerkit.databases WHERE id = %s"
_LOOKED = "UPDATE triggerkit.databases SET looked_lsn = %s WHERE id = %s"


class _Known(NamedTuple):
    relation_oid: int
    membership: int
    partitions: tuple[int, ...]
    is_lost: bool
    changed_by: tuple[str | None, str | None]

    def is_told_alike(self, member: Member, own_change: str | None) -> bool:
        """Return whether nobody changed what is published of the relation; `own_change` is by
        `apply` itself, and what an earlier release kept does not say."""
        publication, row = self.changed_by
        return publication is None or (
            member.changed_by[0] in (publication, own_change) and member.changed_by[1] == row
        )


class Found(NamedTuple):
    """A gap that was found, and the consumers that have it."""

    lost: LostChanges
    consumers: list[str]

    def __str__(self) -> str:
        names, table = ", ".join(self.consumers), table_text(self.lost.schema, self.lost.table)
        first = self.consumers[0]
        again = f"triggerkit backfill start {first} --table {quote(table)}"
        remedy = f"read it anew with: {again}"
        if self.lost.to_lsn is None:
            remedy = f"run: triggerkit apply; then {remedy}"
        return (
            f"changes of {table} are missing for {names}: {self.lost.cause}; {remedy} (or accept "
            f"the gap with: triggerkit consumers accept-gap {first})"
        )


async def look(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database_id: int,
    publication: str,
    also: Iterable[tuple[str, str]] = (),
    own_change: str | None = None,
) -> list[Found]:
    """Mark the gaps that came about since the last look, and return them.

    Looked at is what the database's consumers follow, and `also`. `own_change` is a change of the
    publication, as `last_change` has it, that made it tell more.
    """
    async with state.transaction():
        await state.execute(_LOCK, [database_id])
        names = {*also, *await followed_names(state, database_id)}
        known = await _known(state, database_id)
        for name in known.keys() - names:
            await state.execute(_FORGET, [database_id, *name])
        # Before the catalog is read: nothing that changes later is taken for seen.
        lsn = await wal_end(source)
        members = await read_members(source, publication, sorted(names))
        cursor = await state.execute(_LOOKED_BEFORE, [database_id])
        row = await cursor.fetchone()
        before = int(row[0]) if row else 0
        changed = {n: m for n, m in members.items() if _differs(known.get(n), m)}
        where = await present_names(source, [known[n].relation_oid for n in changed if n in known])
        found = []
        # After it: what is published now may be so since this very moment.
        to_lsn = await wal_end(source) if changed else lsn
        for name, member in changed.items():
            lost = None
            was = known.get(name)
            if was is not None:
                is_same = was.is_told_alike(member, own_change)
                lost = await _changed(source, name, was, member, where, (before, to_lsn), is_same)
            await _keep(state, database_id, name, known.get(name), member)
            if lost is not None:
                consumers = await mark_lost(state, database_id, lost)
                if consumers:
                    found.append(Found(lost, consumers))
        # Last, since the log's writer waits for that row.
        await state.execute(_LOOKED, [lsn, database_id])
    return found


def _differs(known: _Known | None, member: Member) -> bool:
    if member.membership is None:
        # Told of once, when it is lost.
        return known is not None and not known.is_lost
    if known is None or known.is_lost:
        return True
    return (known.relation_oid, known.membership, known.partitions, known.changed_by) != (
        member.relation_oid,
        member.membership,
        member.partitions,
        member.changed_by,
    )


async def _changed(
    source: psycopg.AsyncConnection,
    name: tuple[str, str],
    known: _Known,
    member: Member,
    where: dict[int, str],
    between: tuple[int, int],
    is_told_alike: bool,
) -> LostChanges | None:
    """Return what is lost by the change from `known` to `member`, `between` two places."""
    before, lsn = between
    oid = member.relation_oid or known.relation_oid
    is_same = (known.relation_oid, known.membership) == (member.relation_oid, member.membership)
    if is_same and not known.is_lost and is_told_alike:
        attached = await brought_rows(
            source, [p for p in member.partitions if p not in known.partitions]
        )
        if not attached:
            return None
        cause = f"{', '.join(attached)} was attached as a partition, with rows that it had before"
        return LostChanges("table", *name, oid, before, lsn, cause)
    cause = _cause(table_text(*name), known, member, where)
    to_lsn = None if member.membership is None else lsn
    return LostChanges("table", *name, oid, before, to_lsn, cause)


def _cause(dotted: str, known: _Known, member: Member, where: dict[int, str]) -> str:
    if member.relation_oid == known.relation_oid:
        if member.membership is None:
            return f"{dotted} is not wholly published any more"
        if member.membership == known.membership and not known.is_lost:
            return f"what the publication tells of {dotted} was changed, maybe for a while"
        return f"{dotted} was taken out of the publication and put back"
    now = where.get(known.relation_oid)
    what = "was dropped" if now is None else f"is now {now}"
    if member.relation_oid is None:
        return f"the table {dotted} {what}"
    return f"the table that was {dotted} {what}, and another has its name"


async def _keep(
    state: psycopg.AsyncConnection,
    database_id: int,
    name: tuple[str, str],
    known: _Known | None,
    member: Member,
) -> None:
    if member.membership is not None:
        values = [member.relation_oid, member.membership, list(member.partitions)]
        await state.execute(_KEEP, [database_id, *name, *values, *member.changed_by])
    elif known is not None:
        await state.execute(_LOSE, [database_id, *name])


async def followed_names(state: psycopg.AsyncConnection, database_id: int) -> list[TableName]:
    """Return the tables that the database's consumers follow, or that have a topic, each once."""
    cursor = await state.execute(_FOLLOWED, {"database": database_id})
    return [TableName.parse(name) for (name,) in await cursor.fetchall()]


async def _known(state: psycopg.AsyncConnection, database_id: int) -> dict[tuple[str, str], _Known]:
    cursor = await state.execute(_KNOWN, [database_id])
    return {
        (schema, name): _Known(oid, membership, tuple(partitions), is_lost, tuple(by))
        for schema, name, oid, membership, partitions, is_lost, *by in await cursor.fetchall()
    }
