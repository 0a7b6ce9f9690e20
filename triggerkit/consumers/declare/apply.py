"""Makes what a project declares so: publication, slot, endpoints, consumers, cursors, backfills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.declare.plan import Plan, PlanStep, make_plan, stored_consumers
from triggerkit.consumers.endpoints.declared import EndpointSteps
from triggerkit.consumers.gap import mark_gap
from triggerkit.encryption import Keyring
from triggerkit.errors import PreflightFailed
from triggerkit.replication.slot import (
    PUBLICATION,
    SourceIdentity,
    drop_slot,
    ensure_publication,
    ensure_slot,
    identify,
    require_logical,
    slot_name_for,
)
from triggerkit.state.channels import notify_consumers


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

#: A new slot, or another server behind the URL, starts LSNs anew: old progress is void. Epochs are
#: seconds since 1970, so that they also grow when the state was lost that knew the last one.
_NEW_SLOT = """
UPDATE triggerkit.databases
SET slot_epoch = greatest(slot_epoch + 1, extract(epoch FROM now())::int), last_commit_lsn = 0,
    epoch_position = next_position, system_identifier = %s, timeline = %s
WHERE id = %s
"""


_IS_THERE = "SELECT FROM pg_replication_slots WHERE slot_name = %s"

_IS_LOST = """
SELECT FROM pg_replication_slots
WHERE slot_name = %s AND to_jsonb(pg_replication_slots) ->> 'wal_status' = 'lost'
"""


async def find_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
    """The state's row for the database behind `source`; None before its slot was made."""
    database = await _find_database(source, state)
    return None if database is None or database.slot_epoch == 0 else database


async def _find_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
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


async def plan(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection, declarations: Declarations
) -> Plan:
    """What `apply` would do to consumers; changes nothing.

    Raises:
        ConfigurationError: a declaration does not fit the source.
    """
    database = await _find_database(source, state)
    stored = [] if database is None else await stored_consumers(state, database.id)
    return await make_plan(source, stored, declarations.consumers)


async def apply(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    declared: Sequence[Declared] | Declarations,
    public_url: str,
    *,
    keyring: Keyring | None = None,
    may_lose: bool = False,
) -> list[str]:
    """Make `declared` so and return what changed, one line each. Doing it twice changes nothing.

    Steps that lose something are left out unless `may_lose`, and named in the lines. When anything
    in `declared` does not fit, nothing is changed at all.

    Raises:
        ConfigurationError: a declaration does not fit the source.
        PreflightFailed: the source cannot be captured from, or a table cannot be followed.
    """
    declarations = declared if isinstance(declared, Declarations) else Declarations(declared)
    await require_logical(source)
    planned = await plan(source, state, declarations)
    endpoints = EndpointSteps(state, keyring or Keyring([]), public_url)
    await endpoints.check(declarations.endpoints, declarations.consumers)
    database, identity = await ensure_database(source, state)
    tables = [t for consumer in declarations.consumers for t in consumer.definition.table_names]
    await ensure_publication(source, database.publication_name, tables)
    done = await ensure_capture_slot(source, state, database, identity, may_lose=may_lose)
    done += await endpoints.declare(declarations.endpoints)
    for consumer in declarations.consumers:
        # The address of our own routes may have changed, whatever else did not.
        await endpoints.ensure_route(consumer)
    for step in planned.steps:
        if step.loses and not may_lose:
            done.append(f"left as it is, since it would lose something: {step}")
            continue
        done += await _make(state, database, endpoints, step)
    done += await endpoints.remove_others(declarations.endpoints)
    done += [f"warning: {warning}" for warning in planned.warnings]
    await notify_consumers(state)
    return done


async def ensure_capture_slot(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    identity: SourceIdentity,
    *,
    may_lose: bool = False,
) -> list[str]:
    """Make the slot if it is missing; what was not captured since the one before is a gap.

    Raises:
        PreflightFailed: the server gave the slot up, and its successor would begin after a gap;
            with `may_lose` it is replaced.
    """
    cursor = await source.execute(_IS_LOST, [database.slot_name])
    if await cursor.fetchone() is not None:
        if not may_lose:
            raise PreflightFailed(
                f"the server gave up the replication slot {database.slot_name}: it lagged behind "
                "max_slot_wal_keep_size, and changes are missing. `triggerkit apply --yes` "
                "replaces it and marks the gap; then read the tables anew by `triggerkit backfill`"
            )
        await drop_slot(source, database.slot_name)
    cursor = await source.execute(_IS_THERE, [database.slot_name])
    is_replaced = await cursor.fetchone() is None and database.slot_epoch > 0
    # Before the slot is made: afterwards nobody sees any more that changes are missing.
    gaps = await _begin_anew(state, database, identity) if is_replaced else []
    slot_is_new = await ensure_slot(source, database.slot_name)
    if database.slot_epoch == 0:
        await state.execute(_NEW_SLOT, [identity.system_identifier, identity.timeline, database.id])
    if not slot_is_new:
        return gaps
    return [f"created replication slot {database.slot_name}", *gaps]


async def _begin_anew(
    state: psycopg.AsyncConnection, database: Database, identity: SourceIdentity
) -> list[str]:
    """Note that a slot is to take the place of a lost one; what every consumer is to be told."""
    reason = "the replication slot was lost: changes made until its successor are missing"
    async with state.transaction():
        await state.execute(_NEW_SLOT, [identity.system_identifier, identity.timeline, database.id])
        stored = await stored_consumers(state, database.id)
        await mark_gap(state, [consumer.id for consumer in stored], reason)
    return [
        f"{reason}; read the tables anew with: triggerkit backfill start {consumer.name}"
        for consumer in stored
    ]


async def _make(
    state: psycopg.AsyncConnection, database: Database, endpoints: EndpointSteps, step: PlanStep
) -> list[str]:
    consumers = Consumers(state, "apply")
    declared, stored = step.declared, step.stored
    if step.verb in ("create", "change"):
        assert declared is not None
        async with state.transaction():
            endpoint_id = await endpoints.id_for(declared)
            if stored is None:
                await consumers.create(database.id, declared, endpoint_id)
            else:
                await consumers.change(stored, declared, endpoint_id)
    elif step.verb == "pause":
        assert stored is not None
        await consumers.pause(stored)
    elif step.verb == "resume" and stored is not None:
        await consumers.resume(stored)
    elif step.verb == "replay" and stored is not None and declared is not None:
        assert declared.definition.replay_from is not None
        await consumers.replay_declared(stored, declared.definition.replay_from)
    elif step.verb == "delete" and stored is not None:
        await consumers.delete(stored)
    if stored is not None and declared is not None and step.verb != "change":
        await consumers.remember(stored, declared)
    past = {"create": "created", "change": "changed", "replay": "replayed"}
    return [f"{past.get(step.verb, f'{step.verb}d')} consumer {step.name}"]
