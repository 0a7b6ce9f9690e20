"""The columns that consumers name: still there, and still of their type."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from triggerkit.consumers.declare.followed import apart_groups, gone, read_followed, retyped
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.replication.publication.columns import published_columns
from triggerkit.supervisor.checks.check import Check


async def check_columns(
    source: psycopg.AsyncConnection,
    publication: str,
    definitions: Sequence[tuple[str, ConsumerDefinition]],
) -> list[Check]:
    """Return what became of columns that consumers name; nothing where all are as they were."""
    # Each table is read once, however many consumers follow it.
    tables = {table for _, definition in definitions for table in definition.table_names}
    published = await published_columns(source, publication, tables)
    compared = {t for _, d in definitions if d.filters or d.group_by for t in d.table_names}
    followed = await read_followed(source, compared)
    checks = []
    for name, definition in definitions:
        remedy = "triggerkit apply  # or set the consumer's filters again through the API"
        if found := retyped(followed, definition):
            label = f"filters of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
        if found := [*gone(published, definition), *apart_groups(followed, definition)]:
            remedy = "correct the consumer's options, then run: triggerkit apply"
            label = f"columns of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
    return checks
