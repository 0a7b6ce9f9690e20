"""Source databases as the state knows them: slot, publication, epoch."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from triggerkit.replication.slot import PUBLICATION, SourceIdentity, identify, slot_name_for


@dataclass(frozen=True, slots=True)
class Database:
    """A source database as the state knows it."""

    id: int
    name: str
    slot_name: str
    publication_name: str
    slot_epoch: int
    system_identifier: str


_UPSERT_DATABASE = """
INSERT INTO triggerkit.databases
    (name, slot_name, publication_name, system_identifier, timeline)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING id, name, slot_name, publication_name, slot_epoch, system_identifier
"""

_FIND_DATABASE = """
SELECT id, name, slot_name, publication_name, slot_epoch, system_identifier
FROM triggerkit.databases WHERE name = %s
"""


async def find_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
    """Return the state's row for the database behind `source`; None before its slot was made."""
    database = await known_database(source, state)
    return None if database is None or database.slot_epoch == 0 else database


async def known_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
    """Return the state's row for the database behind `source`, None where it has none."""
    cursor = await state.execute("SELECT to_regclass('triggerkit.databases') IS NOT NULL")
    if await cursor.fetchone() == (False,):
        return None
    identity = await identify(source)
    cursor = await state.execute(_FIND_DATABASE, [identity.database])
    row = await cursor.fetchone()
    return None if row is None else Database(*row)


async def ensure_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> tuple[Database, SourceIdentity]:
    """Return the state's row for the database behind `source`, made when it is missing."""
    identity = await identify(source)
    cursor = await state.execute(
        _UPSERT_DATABASE,
        [
            identity.database,
            slot_name_for(identity.database),
            PUBLICATION,
            identity.system_identifier,
            identity.timeline,
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    return Database(*row), identity
