"""Preflight: what must hold before a row can run its task, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psycopg

from triggerkit.configuration.addresses import shown_database
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.source.database import CaptureNames, known_database
from triggerkit.errors import CannotConnect
from triggerkit.replication.slot import identify
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.authorization import check_secrets
from triggerkit.supervisor.checks.broker import check_broker
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.publication import check_publication
from triggerkit.supervisor.checks.server import check_connection, check_pgvector, check_server
from triggerkit.supervisor.checks.session import check_session
from triggerkit.supervisor.checks.slot import check_slot
from triggerkit.supervisor.checks.state import check_state
from triggerkit.supervisor.checks.tables import check_tables

__all__ = ["Check", "run_checks"]


async def run_checks(
    settings: Settings, declared: Sequence[Declared], *, advise: bool = False
) -> list[Check]:
    """Make all checks, as far as they can be made. Without `advise` only what must hold is looked
    at, which asks nobody but Postgres and the transport.

    Raises:
        CannotConnect: the source's Postgres does not answer.
        ConfigurationError: a setting is missing or wrong.
    """
    async with await connect(settings.source_dsn, "triggerkit check") as source:
        checks = [Check("postgres reachable", True, shown_database(settings.source_dsn))]
        checks += await check_connection(source)
        publication, slot, was_made = await _names(settings, source)
        checks += await _source(source, declared, publication, slot, advise=advise)
        # `dev` makes a slot that is gone anew by itself.
        checks += [await check_slot(source, slot, was_made=advise and was_made)]
        checks += await check_state(settings, source)
    checks += await check_broker(settings)
    checks += check_secrets(settings)
    if advise:
        # Imported here: it needs an HTTP client, which `dev` and `apply` would wait for in vain.
        from triggerkit.supervisor.checks.endpoints import check_endpoints

        checks += await check_endpoints(settings, declared)
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
    slot_name: str,
    *,
    advise: bool,
) -> list[Check]:
    of_tables, tables = await check_tables(source, declared, publication)
    return [
        *await check_server(source, slot_name),
        await check_session(source, "session"),
        *of_tables,
        *await check_publication(source, publication, tables, advise=advise),
        *([await check_pgvector(source)] if advise else []),
    ]
