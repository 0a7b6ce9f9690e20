"""Load a consumer group, and store what became of it: whoever does holds the group's row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import psycopg

from triggerkit.events.groups.group import Group, Instance, Options, Place
from triggerkit.state.channels import LOG

_MAKE = "INSERT INTO triggerkit.event_groups (name) VALUES (%s) ON CONFLICT DO NOTHING"

_LOCK = "SELECT id FROM triggerkit.event_groups WHERE name = %s FOR NO KEY UPDATE"

#: After the lock: what was committed before it is seen.
_NOW = "SELECT clock_timestamp()"

_INSTANCES = """
SELECT name, topics, auto_commit, commit_interval_ms, offset_reset, session_timeout_ms, seen_at,
    committed_at, request, server
FROM triggerkit.event_instances WHERE group_id = %s ORDER BY name
"""

_PLACES = """
SELECT topic, partition, owner, next_owner, first, committed, position, handed_from
FROM triggerkit.event_offsets WHERE group_id = %s ORDER BY topic, partition
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
    committed, position, handed_from)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (group_id, topic, partition) DO UPDATE SET owner = excluded.owner,
    next_owner = excluded.next_owner, first = excluded.first, committed = excluded.committed,
    position = excluded.position, handed_from = excluded.handed_from
"""

_RING = f"SELECT pg_notify('{LOG}', 'group ' || %s)"

_GROUPS = "SELECT id, name FROM triggerkit.event_groups ORDER BY name"


async def make_group(connection: psycopg.AsyncConnection, name: str) -> None:
    """Make the group, if there is none of this name."""
    await connection.execute(_MAKE, [name])


@asynccontextmanager
async def held_group(connection: psycopg.AsyncConnection, name: str) -> AsyncIterator[Group | None]:
    """Yield the group, which nobody else changes meanwhile, and store what became of it; None where
    there is none of this name. What raises changes nothing."""
    async with connection.transaction():
        cursor = await connection.execute(_LOCK, [name])
        row = await cursor.fetchone()
        if row is None:
            yield None
            return
        group = await _load(connection, row[0])
        before = deepcopy(group)
        yield group
        await _store(connection, group, before)


async def read_group(connection: psycopg.AsyncConnection, name: str) -> Group | None:
    """Return the group as it is now, without holding it."""
    cursor = await connection.execute(
        "SELECT id FROM triggerkit.event_groups WHERE name = %s", [name]
    )
    row = await cursor.fetchone()
    return None if row is None else await _load(connection, row[0])


async def read_groups(connection: psycopg.AsyncConnection) -> list[tuple[str, Group]]:
    """Return all groups by their names, as they are now."""
    cursor = await connection.execute(_GROUPS)
    return [(name, await _load(connection, id_)) for id_, name in await cursor.fetchall()]


async def _load(connection: psycopg.AsyncConnection, group_id: int) -> Group:
    row: Any = await (await connection.execute(_NOW)).fetchone()
    group = Group(group_id, row[0])
    for found in await (await connection.execute(_INSTANCES, [group_id])).fetchall():
        name, topics, *options, seen_at, committed_at, request, server = found
        group.instances[name] = Instance(
            name, tuple(topics), Options(*options), seen_at, committed_at, request, server
        )
    for found in await (await connection.execute(_PLACES, [group_id])).fetchall():
        place = Place(*found)
        group.places[place.topic, place.partition] = place
    return group


async def _store(connection: psycopg.AsyncConnection, group: Group, before: Group) -> None:
    for name in before.instances.keys() - group.instances.keys():
        await connection.execute(_REMOVE_INSTANCE, [group.id, name])
    for name, one in group.instances.items():
        if before.instances.get(name) != one:
            times = [one.seen_at, one.committed_at, one.request, one.server]
            values = [group.id, name, list(one.topics), *one.options, *times]
            await connection.execute(_STORE_INSTANCE, values)
    changed = [p for key, p in group.places.items() if before.places.get(key) != p]
    if changed:
        rows = [
            [group.id, p.topic, p.partition, p.owner, p.next_owner, *p.offsets] for p in changed
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_STORE_PLACE, rows)
    if group.has_changed:
        await connection.execute(_RING, [group.id])
