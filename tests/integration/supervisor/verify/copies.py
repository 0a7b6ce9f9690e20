"""Notes and their copies: what the tests verify, damage and fix."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from triggerkit import Change, Task, rows, task
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.supervisor.verify.compare import verifiable
from triggerkit.supervisor.verify.verify import Fixed, Verification, fix, verify

TABLES = """
CREATE TABLE public.notes (id bigint PRIMARY KEY, text text NOT NULL, detail jsonb);
CREATE TABLE public.copies (id bigint PRIMARY KEY, text text NOT NULL);
"""

QUERY = """
SELECT coalesce(n.id, c.id), CASE WHEN c.id IS NULL THEN 'missing'
    WHEN n.id IS NULL THEN 'orphaned' ELSE 'stale' END
FROM notes n FULL JOIN copies c ON c.id = n.id
WHERE n.text IS DISTINCT FROM c.text ORDER BY 1;
"""

Connection = psycopg.Connection[Any]

Batch = list[Change[dict[str, Any]]]


def declared(query: Any = QUERY) -> Task[Any, Any, Any]:
    """A batch task that does nothing: the tests look at its runs."""

    @task(verify=query, on=rows("public.notes"), batch_size=2)
    def copy(batch: Batch) -> None: ...

    return copy


def look(settings: Settings, looked_at: Task[Any, Any, Any], limit: int = 20) -> Verification:
    """Verify a task."""

    async def once() -> Verification:
        client = await Client.open(settings)
        try:
            return await verify(settings, client, verifiable(looked_at), limit)
        finally:
            await client.close()

    return asyncio.run(once())


def fixed(settings: Settings, looked_at: Task[Any, Any, Any], wait_s: float = 0) -> Fixed:
    """Verify a task and fix what is found."""

    async def once() -> Fixed:
        client = await Client.open(settings)
        try:
            return await fix(settings, client, verifiable(looked_at), 20, wait_s)
        finally:
            await client.close()

    return asyncio.run(once())


def copying(settings: Settings) -> Task[Any, Any, Any]:
    """A task whose effect is a copy of each row."""

    @task(verify=QUERY, on=rows("public.notes"), batch_size=100)
    def copy(batch: Batch) -> None:
        with psycopg.connect(settings.source_dsn) as connection:
            for change in batch:
                connection.execute("DELETE FROM copies WHERE id = %s", [change.record["id"]])
                if change.action != "delete":
                    text = "INSERT INTO copies VALUES (%(id)s, %(text)s)"
                    connection.execute(text, {k: change.record[k] for k in ("id", "text")})

    return copy


def damage(database: Connection) -> None:
    """Make rows 1 to 5: 1 and 2 in step, 3 and 4 missing, 5 stale; 6 and 7 are orphaned."""
    database.execute("INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 5) n")
    database.execute("INSERT INTO copies SELECT n, 'note ' || n FROM generate_series(1, 2) n")
    database.execute("INSERT INTO copies VALUES (5, 'old'), (6, 'note 6'), (7, 'note 7')")


def listed(found: Verification) -> list[tuple[str, str]]:
    """The keys and problems of what is listed."""
    return [(row.key[0], row.problem) for row in found.listed]
