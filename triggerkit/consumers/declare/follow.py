"""Has tables captured: in the publication, and remembered as they are now."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from triggerkit.consumers.database import Database
from triggerkit.consumers.relations import note_present
from triggerkit.replication.publication.ensure import ensure_publication


async def follow(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    tables: Iterable[tuple[str, str]],
) -> list[str]:
    """Have changes of `tables` captured from now on. Returns what is to be said.

    Raises:
        PreflightFailed: see `ensure_publication`.
    """
    published = await ensure_publication(source, database.publication_name, tables)
    await note_present(source, state, database.id, [table.oid for table in published.tables])
    return published.said
