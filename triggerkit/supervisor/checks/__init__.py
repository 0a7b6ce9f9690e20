"""Preflight: what must hold before a row can run its task, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import psycopg

from triggerkit.configuration.addresses import shown_database
from triggerkit.consumers.declare.declaration import Declared, DeclaredEndpoint
from triggerkit.consumers.source.database import CaptureNames, known_database
from triggerkit.errors import CannotConnect
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.authorization import check_secrets
from triggerkit.supervisor.checks.broker import check_broker
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.events import check_events
from triggerkit.supervisor.checks.models import Model, check_models
from triggerkit.supervisor.checks.provider import check_provider, provider_of
from triggerkit.supervisor.checks.publication import check_publication
from triggerkit.supervisor.checks.role_settings import check_encoding, check_role_settings
from triggerkit.supervisor.checks.server import (
    check_connection,
    check_pgvector,
    check_rights,
    check_server,
)
from triggerkit.supervisor.checks.session import check_session
from triggerkit.supervisor.checks.slot import check_failover, check_slot, check_standby
from triggerkit.supervisor.checks.state import check_state
from triggerkit.supervisor.checks.tables import check_tables

__all__ = ["Check", "Model", "run_checks"]


async def run_checks(
    settings: Settings,
    declared: Sequence[Declared],
    endpoints: Sequence[DeclaredEndpoint] = (),
    *,
    models: Sequence[Model] = (),
    advise: bool = False,
) -> list[Check]:
    """Make all checks, as far as they can be made. Without `advise` only what must hold is looked
    at, which asks nobody but Postgres and the transport.

    Raises:
        CannotConnect: the source's Postgres does not answer.
        ConfigurationError: a setting is missing or wrong.
    """
    async with AsyncExitStack() as stack:
        source = await connect(settings.source_dsn, "triggerkit check")
        await stack.enter_async_context(source)
        checks = [Check("postgres reachable", True, shown_database(settings.source_dsn))]
        provider = await provider_of(source)
        checks += check_provider(provider)
        checks += await check_connection(source, provider)
        publication, slot, was_made = await _names(settings, source)
        slots = await stack.enter_async_context(CaptureNames.of(settings).slots(source))
        checks += await check_server(slots, slot, provider)
        if slots is not source:
            checks += await check_standby(slots, source)
        checks.append(await check_session(source, "session"))
        checks += await _source(source, declared, publication, advise=advise)
        checks += await check_models(source, publication, models)
        if advise:
            checks.append(await check_rights(source))
            checks += await check_role_settings(source)
            checks += await check_encoding(source)
            checks.append(await check_pgvector(source, provider))
            checks += await check_failover(slots, slot)
        # `dev` makes a slot that is gone anew by itself.
        checks += [await check_slot(slots, slot, was_made=advise and was_made)]
        checks += await check_state(settings, source)
    checks += await check_broker(settings)
    checks += check_secrets(settings)
    if advise:
        # Imported here: it needs an HTTP client, which `dev` and `apply` would wait for in vain.
        from triggerkit.supervisor.checks.endpoints import check_own_routes
        from triggerkit.supervisor.checks.foreign_endpoints import check_foreign_endpoints

        checks += await check_own_routes(settings, declared)
        checks += await check_foreign_endpoints(settings, declared, endpoints)
        checks += await check_events(settings)
    shown = [check for check in checks if advise or check.required]
    return [replace(check, remedy=None) if check.ok else check for check in shown]


async def _names(settings: Settings, source: psycopg.AsyncConnection) -> tuple[str, str, bool]:
    """Return the names of publication and slot, as they were made or as `apply` will make them, and
    whether the slot was made."""
    names = CaptureNames.of(settings)
    try:
        async with await connect(settings.state_dsn, "triggerkit check") as state:
            known = await known_database(source, state)
    except (CannotConnect, psycopg.Error):
        # That is a fault of its own, which is told with the state's.
        known = None
    if known is None:
        return *names.for_database(await identify(source)), False
    publication = names.publication or known.publication_name
    return publication, known.slot_name, known.slot_epoch > 0


async def _source(
    source: psycopg.AsyncConnection,
    declared: Sequence[Declared],
    publication: str,
    *,
    advise: bool,
) -> list[Check]:
    of_tables, tables = await check_tables(source, declared, publication)
    return [*of_tables, *await check_publication(source, publication, tables, advise=advise)]
