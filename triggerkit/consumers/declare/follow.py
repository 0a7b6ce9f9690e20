"""Has tables captured: in the publication, and remembered as they are now."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from triggerkit.consumers.source.database import Database
from triggerkit.consumers.source.published import look
from triggerkit.consumers.source.relations import note_present
from triggerkit.log.trust import note_sighting
from triggerkit.replication.publication.ensure import ensure_publication
from triggerkit.replication.sighting import sight_table


async def follow(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    tables: Iterable[tuple[str, str]],
) -> list[str]:
    """Have changes of `tables` captured from now on. Returns what is to be said.

    What was not published for a while becomes a gap of those who follow it.

    Raises:
        PreflightFailed: see `ensure_publication`.
    """
    publication, wanted = database.publication_name, list(tables)
    # Before it is altered: afterwards nobody sees any more what was not published.
    await look(source, state, database.id, publication, wanted)
    published = await ensure_publication(source, publication, wanted)
    found = await look(source, state, database.id, publication, wanted, published.change)
    await note_present(source, state, database.id, [table.oid for table in published.tables])
    for name in wanted:
        sighting = await sight_table(source, publication, name)
        if sighting is not None:
            await note_sighting(state, database.id, sighting)
    return [*published.said, *map(str, found)]
