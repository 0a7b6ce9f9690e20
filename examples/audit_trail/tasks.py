"""Writes every change of `accounts` into `audit_trail`: once, with its old values and its actor."""

import os
from functools import cache
from typing import Any

from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from triggerkit import Change, changes, task

INSERT = """
INSERT INTO audit_trail
    (position, committed_at, actor, action, table_name, row_key, row_after, old_values)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (position) DO NOTHING
"""


@cache
def pool() -> ConnectionPool:
    """The task's own connections, opened at their first use: worker processes are forked."""
    return ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=8, open=True)


@task(on=changes("public.accounts"), batch_size=500)
def write_audit_trail(batch: list[Change[dict[str, Any]]]) -> int:
    """Write a batch; what a repeated attempt wrote before is left as it is."""
    with pool().connection() as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT, [entry(change) for change in batch])
    return len(batch)


def entry(change: Change[dict[str, Any]]) -> list[Any]:
    """Return a change as a row of `audit_trail`."""
    metadata = change.metadata
    is_gone = change.action in ("delete", "truncate")
    old = change.record if change.action == "delete" else change.changes
    return [
        metadata.position,
        metadata.commit_timestamp,
        (metadata.transaction_annotations or {}).get("actor"),
        change.action,
        f"{metadata.table_schema}.{metadata.table_name}",
        [str(value) for value in metadata.record_pks],
        None if is_gone else Jsonb(change.record),
        None if old is None else Jsonb(old),
    ]
