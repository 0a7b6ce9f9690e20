"""The columns that consumers name: still there, and still of their type."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from triggerkit.consumers.declare.followed import apart_groups, gone, retyped
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.supervisor.checks.check import Check


async def check_columns(
    source: psycopg.AsyncConnection,
    publication: str,
    definitions: Iterable[tuple[str, ConsumerDefinition]],
) -> list[Check]:
    """Return what became of columns that consumers name; nothing where all are as they were."""
    checks = []
    for name, definition in definitions:
        remedy = "triggerkit apply  # or set the consumer's filters again through the API"
        if found := await retyped(source, definition):
            label = f"filters of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
        if found := [
            *await gone(source, publication, definition),
            *await apart_groups(source, definition),
        ]:
            remedy = "correct the consumer's options, then run: triggerkit apply"
            label = f"columns of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
    return checks
