"""Makes the declared consumers so: publication, slot, endpoint, consumer, cursors, backfill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.types.json import Jsonb

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.log.entry import PARTITIONS
from triggerkit.replication.slot import (
    PUBLICATION,
    SourceIdentity,
    ensure_publication,
    ensure_slot,
    identify,
    require_logical,
    slot_name_for,
)


@dataclass(frozen=True, slots=True)
class Declared:
    """A consumer declared in code: its name, what it is, and the path of its route."""

    name: str
    definition: ConsumerDefinition
    path: str


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
FROM triggerkit.databases WHERE name = %s AND slot_epoch > 0
"""

#: A new slot, or another server behind the URL, starts LSNs anew: old progress is void. Epochs are
#: seconds since 1970, so that they also grow when the state was lost that knew the last one.
_NEW_SLOT = """
UPDATE triggerkit.databases
SET slot_epoch = greatest(slot_epoch + 1, extract(epoch FROM now())::int), last_commit_lsn = 0,
    system_identifier = %s, timeline = %s
WHERE id = %s
"""

_UPSERT_ENDPOINT = """
INSERT INTO triggerkit.endpoints (name, url) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET url = excluded.url
RETURNING id
"""

#: Returns the consumer and whether it is new.
_UPSERT_CONSUMER = """
INSERT INTO triggerkit.consumers (name, database_id, endpoint_id, kind, definition)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE
    SET endpoint_id = excluded.endpoint_id, definition = excluded.definition
RETURNING id, xmax = 0
"""

#: A new consumer starts at the log's head; what existed before comes by its backfill.
_INSERT_CURSORS = """
INSERT INTO triggerkit.cursors (consumer_id, partition, position)
SELECT %s, p, d.next_position - 1
FROM triggerkit.databases d, generate_series(0, %s - 1) p WHERE d.id = %s
"""

_INSERT_BACKFILL = """
INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, sort_column)
VALUES (%s, %s, %s, %s)
"""


async def find_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
    """The state's row for the database behind `source`; None before its slot was made."""
    cursor = await state.execute("SELECT to_regclass('triggerkit.databases') IS NOT NULL")
    if await cursor.fetchone() == (False,):
        return None
    identity = await identify(source)
    cursor = await state.execute(_FIND_DATABASE, [identity.database])
    row = await cursor.fetchone()
    return None if row is None else Database(*row)


async def _ensure_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> tuple[Database, SourceIdentity]:
    """The state's row for the database behind `source`, made when it is missing."""
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


async def apply(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    declared: Sequence[Declared],
    public_url: str,
) -> list[str]:
    """Make `declared` so and return what changed, one line each. Doing it twice changes nothing.

    Raises:
        PreflightFailed: the source cannot be captured from, or a table is missing.
    """
    await require_logical(source)
    done: list[str] = []
    tables = [t for d in declared for t in d.definition.table_names]
    database, identity = await _ensure_database(source, state)
    await ensure_publication(source, database.publication_name, tables)
    slot_is_new = await ensure_slot(source, database.slot_name)
    if slot_is_new or database.slot_epoch == 0:
        await state.execute(_NEW_SLOT, [identity.system_identifier, identity.timeline, database.id])
    if slot_is_new:
        done.append(f"created replication slot {database.slot_name}")
    if slot_is_new and database.slot_epoch > 0:
        done.append(
            "the slot before it is gone: changes made since then are missing in the log; "
            "delete the consumers and apply again to read their tables anew"
        )
    for consumer in declared:
        async with state.transaction():
            if await _apply_consumer(state, database, consumer, public_url):
                done.append(f"created consumer {consumer.name}")
    await state.execute("SELECT pg_notify('triggerkit_consumers', '')")
    return done


async def _apply_consumer(
    state: psycopg.AsyncConnection, database: Database, declared: Declared, public_url: str
) -> bool:
    definition = declared.definition
    cursor = await state.execute(_UPSERT_ENDPOINT, [declared.name, f"{public_url}{declared.path}"])
    endpoint = await cursor.fetchone()
    assert endpoint is not None
    cursor = await state.execute(
        _UPSERT_CONSUMER,
        [
            declared.name,
            database.id,
            endpoint[0],
            definition.kind,
            Jsonb(definition.as_json()),
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    consumer_id, is_new = row
    if not is_new:
        return False
    await state.execute(_INSERT_CURSORS, [consumer_id, PARTITIONS, database.id])
    if definition.start == "beginning":
        for table in definition.table_names:
            await state.execute(
                _INSERT_BACKFILL, [consumer_id, table.schema, table.name, definition.sort_by]
            )
    return True
