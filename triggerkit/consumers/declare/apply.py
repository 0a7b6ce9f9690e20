"""Makes what a project declares so: publication, slot, endpoints, topics, consumers, cursors,
backfills."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.declare.endpoint_steps import EndpointSteps
from triggerkit.consumers.declare.follow import follow
from triggerkit.consumers.declare.log_on_kafka import require_possible
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.declare.plan import Plan, PlanStep, make_plan, stored_consumers
from triggerkit.consumers.declare.preparations import Preparation, prepare
from triggerkit.consumers.declare.slot import ensure_capture_slot
from triggerkit.consumers.declare.topics import plan_topics, with_kafka
from triggerkit.consumers.source.database import (
    OWN_NAMES,
    CaptureNames,
    Database,
    ensure_database,
    known_database,
)
from triggerkit.consumers.source.log_place import begin_log
from triggerkit.encryption import Keyring
from triggerkit.replication.slot.replication_slot import PUBLICATION, require_logical
from triggerkit.state.channels import notify_consumers


async def plan(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    declarations: Declarations,
    names: CaptureNames = OWN_NAMES,
    *,
    public_url: str = "",
    keyring: Keyring | None = None,
) -> Plan:
    """Plan what `apply` does; change nothing.

    Raises:
        ConfigurationError: a declaration does not fit the source.
    """
    database = await known_database(source, state, [c.name for c in declarations.consumers])
    stored = [] if database is None else await stored_consumers(state, database.id)
    publication = names.publication or (database.publication_name if database else PUBLICATION)
    if declarations.is_log_on_kafka:
        await require_possible(source, declarations, publication)
    topics = await plan_topics(source, state, database, declarations.events, publication)
    declarations = with_kafka(declarations, topics)
    planned = await make_plan(source, stored, declarations.consumers, publication)
    endpoints = EndpointSteps(state, keyring or Keyring([]), public_url)
    planned.topics = topics
    planned.warnings += topics.warnings
    planned.preparations = [
        *await prepare(source, state, database, declarations, names, endpoints, topics.tables),
        *topics.preparations(),
    ]
    return planned


async def apply(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    declared: Sequence[Declared] | Declarations,
    public_url: str,
    *,
    keyring: Keyring | None = None,
    may_lose: bool = False,
    names: CaptureNames = OWN_NAMES,
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
    planned = await plan(source, state, declarations, names, public_url=public_url, keyring=keyring)
    declarations = with_kafka(declarations, planned.topics)
    endpoints = EndpointSteps(state, keyring or Keyring([]), public_url)
    database, identity = await ensure_database(
        source, state, names, [c.name for c in declarations.consumers], may_lose=may_lose
    )
    await begin_log(state, database.id, "kafka" if declarations.is_log_on_kafka else "postgres")
    tables = [t for consumer in declarations.consumers for t in consumer.definition.table_names]
    tables += planned.topics.tables
    done = [step.done for step in planned.preparations if _is_told(step, declarations)]
    done += await follow(source, state, database, tables)
    done += await ensure_capture_slot(
        source, state, database, identity, may_lose=may_lose, names=names
    )
    done += await planned.topics.make(state, database.id)
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


def _is_told(step: Preparation, declarations: Declarations) -> bool:
    """Return whether a line of its own says it: what is made of the others is told by each."""
    routes = {consumer.name for consumer in declarations.consumers if consumer.path is not None}
    return step.kind == "publication" or (step.kind == "endpoint" and step.name in routes)


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
