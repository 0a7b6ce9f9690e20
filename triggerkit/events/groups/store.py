"""Load a consumer group, and store what became of it: whoever does holds the group's row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any, Final, NamedTuple

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.events.groups.group import Group, Instance, Options, Place
from triggerkit.state.channels import LOG

#: Groups at most, and the days after which one that nobody used makes room for another.
MOST_GROUPS: Final = 1_000
UNUSED_DAYS: Final = 7

_IS_THERE = "SELECT FROM triggerkit.event_groups WHERE name = %s AND source = %s"

_MAKE = """
INSERT INTO triggerkit.event_groups (name, source)
SELECT %s, %s WHERE (SELECT count(*) FROM triggerkit.event_groups) < %s
ON CONFLICT DO NOTHING RETURNING 1
"""

_IS_UNUSED = f"""
g.used_at < clock_timestamp() - interval '{UNUSED_DAYS} days' AND NOT EXISTS (
    SELECT FROM triggerkit.event_instances i WHERE i.group_id = g.id
      AND i.seen_at >= clock_timestamp() - interval '{UNUSED_DAYS} days')
"""

#: Whoever uses one meanwhile holds it.
_UNUSED = f"""
SELECT g.id FROM triggerkit.event_groups g WHERE {_IS_UNUSED}
ORDER BY g.used_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - of constants

#: Looked at anew once it is held.
_FORGET = f"DELETE FROM triggerkit.event_groups g WHERE g.id = %s AND {_IS_UNUSED}"  # noqa: S608

_USED = "UPDATE triggerkit.event_groups SET used_at = clock_timestamp() WHERE id = %s"

_LOCK = """
SELECT id FROM triggerkit.event_groups WHERE name = %s AND source = %s FOR NO KEY UPDATE
"""

_ID = "SELECT id FROM triggerkit.event_groups WHERE name = %s AND source = %s"

#: After the lock: what was committed before it is seen.
_NOW = "SELECT clock_timestamp()"

_INSTANCES = """
SELECT group_id, name, topics, auto_commit, commit_interval_ms, offset_reset, session_timeout_ms,
    seen_at, committed_at, request, server
FROM triggerkit.event_instances WHERE group_id = ANY (%s) ORDER BY name
"""

_PLACES = """
SELECT group_id, topic, partition, owner, next_owner, first, committed, position, handed_from,
    topic_id
FROM triggerkit.event_offsets WHERE group_id = ANY (%s) ORDER BY topic, partition
"""

_STORE_INSTANCE = """
INSERT INTO triggerkit.event_instances (group_id, name, topics, auto_commit, commit_interval_ms,
    offset_reset, session_timeout_ms, seen_at, committed_at, request, server)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (group_id, name) DO UPDATE SET topics = excluded.topics,
    auto_commit = excluded.auto_commit, commit_interval_ms = excluded.commit_interval_ms,
    offset_reset = excluded.offset_reset, session_timeout_ms = excluded.session_timeout_ms,
    seen_at = excluded.seen_at, committed_at = excluded.committed_at, request = excluded.request,
    server = excluded.server
"""

_REMOVE_INSTANCE = "DELETE FROM triggerkit.event_instances WHERE group_id = %s AND name = %s"

_STORE_PLACE = """
INSERT INTO triggerkit.event_offsets (group_id, topic, partition, owner, next_owner, first,
    committed, position, handed_from, topic_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (group_id, topic, partition) DO UPDATE SET owner = excluded.owner,
    next_owner = excluded.next_owner, first = excluded.first, committed = excluded.committed,
    position = excluded.position, handed_from = excluded.handed_from, topic_id = excluded.topic_id
"""

_RING = f"SELECT pg_notify('{LOG}', 'group ' || %s)"

_GROUPS = "SELECT id, name FROM triggerkit.event_groups WHERE source = %s ORDER BY name"


class GroupName(NamedTuple):
    """What tells a group from others: its name, and the source that it reads."""

    name: str
    source: str


class TooManyGroups(TriggerkitError):
    """There are as many groups as there may be, and all are in use."""


async def make_group(connection: psycopg.AsyncConnection, name: GroupName) -> None:
    """Make the group, if there is none of this name.

    Raises:
        TooManyGroups: there are as many as there may be, and each was used of late.
    """
    if await (await connection.execute(_IS_THERE, name)).fetchone() is not None:
        return
    async with connection.transaction():
        if await _made(connection, name):
            return
        row = await (await connection.execute(_UNUSED)).fetchone()
        if row is not None:
            await connection.execute(_FORGET, [row[0]])
        if row is None or not await _made(connection, name):
            raise TooManyGroups(
                f"there are {MOST_GROUPS} groups already, each used within the last {UNUSED_DAYS} "
                "days; consume by one of them, or read by offset with fetch"
            )


async def _made(connection: psycopg.AsyncConnection, name: GroupName) -> bool:
    """Return whether the group was made, or is there by now."""
    cursor = await connection.execute(_MAKE, [*name, MOST_GROUPS])
    if await cursor.fetchone() is not None:
        return True
    return await (await connection.execute(_IS_THERE, name)).fetchone() is not None


@asynccontextmanager
async def held_group(
    connection: psycopg.AsyncConnection, name: GroupName
) -> AsyncIterator[Group | None]:
    """Yield the group, which nobody else changes meanwhile, and store what became of it; None where
    there is none of this name. What raises changes nothing."""
    async with connection.transaction():
        cursor = await connection.execute(_LOCK, name)
        row = await cursor.fetchone()
        if row is None:
            yield None
            return
        group = await _load(connection, row[0])
        before = deepcopy(group)
        group.heed_clock()
        yield group
        await _store(connection, group, before)


async def read_group(connection: psycopg.AsyncConnection, name: GroupName) -> Group | None:
    """Return the group as it is now, without holding it."""
    cursor = await connection.execute(_ID, name)
    row = await cursor.fetchone()
    return None if row is None else await _load(connection, row[0])


async def read_groups(connection: psycopg.AsyncConnection, source: str) -> list[tuple[str, Group]]:
    """Return all groups of a source by their names, as they are now."""
    cursor = await connection.execute(_GROUPS, [source])
    names: dict[int, str] = dict(await cursor.fetchall())
    groups = await _load_all(connection, list(names))
    return [(name, groups[id_]) for id_, name in names.items()]


async def _load(connection: psycopg.AsyncConnection, group_id: int) -> Group:
    return (await _load_all(connection, [group_id]))[group_id]


async def _load_all(
    connection: psycopg.AsyncConnection, group_ids: Sequence[int]
) -> dict[int, Group]:
    row: Any = await (await connection.execute(_NOW)).fetchone()
    groups = {id_: Group(id_, row[0]) for id_ in group_ids}
    for found in await (await connection.execute(_INSTANCES, [group_ids])).fetchall():
        group_id, name, topics, *options, seen_at, committed_at, request, server = found
        groups[group_id].instances[name] = Instance(
            name, tuple(topics), Options(*options), seen_at, committed_at, request, server
        )
    for group_id, *values in await (await connection.execute(_PLACES, [group_ids])).fetchall():
        place = Place(*values)
        groups[group_id].places[place.topic, place.partition] = place
    return groups


async def _store(connection: psycopg.AsyncConnection, group: Group, before: Group) -> None:
    gone = before.instances.keys() - group.instances.keys()
    for name in gone:
        await connection.execute(_REMOVE_INSTANCE, [group.id, name])
    if gone:
        await connection.execute(_USED, [group.id])
    for name, one in group.instances.items():
        if before.instances.get(name) != one:
            times = [one.seen_at, one.committed_at, one.request, one.server]
            values = [group.id, name, list(one.topics), *one.options, *times]
            await connection.execute(_STORE_INSTANCE, values)
    changed = [p for key, p in group.places.items() if before.places.get(key) != p]
    if changed:
        rows = [
            [group.id, p.topic, p.partition, p.owner, p.next_owner, *p.offsets, p.topic_id]
            for p in changed
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_STORE_PLACE, rows)
    if group.has_changed:
        await connection.execute(_RING, [group.id])
