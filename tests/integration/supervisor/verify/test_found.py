"""What is found of effects: in step, missing, stale, orphaned or pending, and how it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import psycopg
import pytest
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from tests.integration.pipeline import declare, streaming
from tests.integration.supervisor.verify.copies import (
    QUERY,
    Connection,
    damage,
    declared,
    listed,
    look,
)
from tests.receiver import Received, Receiver
from triggerkit import Mismatch, changes, rows
from triggerkit.cli.main import application
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.supervisor.verify.compare import verifiable
from triggerkit.supervisor.verify.verify import Fixed, Verification, fix, verify


def test_rows_in_step_are_true(settings: Settings, database: Connection) -> None:
    database.execute("INSERT INTO notes VALUES (1, 'a'); INSERT INTO copies VALUES (1, 'a')")
    found = look(settings, declared())
    assert found.is_true
    assert (found.rows, found.pending, found.listed) == (1, 0, [])


def test_what_is_missing_stale_and_orphaned_is_found(
    settings: Settings, database: Connection
) -> None:
    damage(database)
    found = look(settings, declared())
    assert not found.is_true
    assert found.rows == 5
    assert found.problems == {"missing": 2, "stale": 1, "orphaned": 2}
    assert listed(found) == [
        ("3", "missing"), ("4", "missing"), ("5", "stale"), ("6", "orphaned"), ("7", "orphaned"),
    ]  # fmt: skip


def test_the_counts_are_whole_though_few_are_listed(
    settings: Settings, database: Connection
) -> None:
    database.execute("INSERT INTO notes SELECT n, 'x' FROM generate_series(1, 3500) n")
    found = look(settings, declared(), limit=2)
    assert found.problems == {"missing": 3500}
    assert listed(found) == [("1", "missing"), ("2", "missing")]


def test_a_function_may_find_them_in_the_snapshot_it_is_given(
    settings: Settings, database: Connection
) -> None:
    damage(database)

    async def by_hand(source: psycopg.AsyncConnection) -> AsyncIterator[Mismatch]:
        cursor = source.cursor("by_hand")
        await cursor.execute("SELECT id FROM notes ORDER BY id")
        async for (row_id,) in cursor:
            database.execute("DELETE FROM notes")
            yield Mismatch((row_id,), "missing")

    found = look(settings, declared(by_hand))
    assert [key for key, _ in listed(found)] == ["1", "2", "3", "4", "5"]


def test_rows_with_changes_before_the_consumer_are_pending(
    settings: Settings, database: Connection
) -> None:
    database.execute("ALTER TABLE notes REPLICA IDENTITY FULL")
    damage(database)
    looked_at = declared()

    async def refuse(_received: Received) -> Response:
        return JSONResponse({}, status_code=503)

    async def changed_meanwhile() -> Verification:
        client = await Client.open(settings)
        async with Receiver.start(refuse) as receiver:
            await declare(settings, receiver, changes("public.notes"), "copy")
            async with streaming(settings, receiver):
                database.execute("UPDATE notes SET text = 'newer' WHERE id IN (1, 2)")
                found = await verify(settings, client, verifiable(looked_at), 20)
        await client.close()
        return found

    found = asyncio.run(changed_meanwhile())
    assert found.pending == 2
    assert found.problems.total() == 5
    assert "1" not in dict(listed(found))


def test_rows_of_a_backfill_are_pending_but_orphans_are_not(
    settings: Settings, database: Connection
) -> None:
    damage(database)

    async def declared_only() -> None:
        async with Receiver.start() as receiver:
            await declare(settings, receiver, rows("public.notes"), "copy")

    asyncio.run(declared_only())
    found = look(settings, declared())
    assert found.under_way.backfill
    assert (found.pending, dict(found.problems)) == (3, {"orphaned": 2})


def test_a_parked_row_is_not_pending(settings: Settings, database: Connection) -> None:
    damage(database)
    looked_at = declared()

    async def refuse(_received: Received) -> Response:
        return JSONResponse({}, status_code=422)

    async def parked() -> tuple[Verification, Fixed]:
        client = await Client.open(settings)
        async with Receiver.start(refuse) as receiver:
            await declare(settings, receiver, changes("public.notes"), "copy")
            async with streaming(settings, receiver):
                database.execute("UPDATE notes SET text = 'newer' WHERE id IN (1, 2)")
                async with asyncio.timeout(10):
                    while database.execute(PARKED).fetchone() != (2,):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            found = await verify(settings, client, verifiable(looked_at), 20)
            fixed = await fix(settings, client, verifiable(looked_at), 20, 0)
        await client.close()
        return found, fixed

    found, fixed = asyncio.run(parked())
    assert (found.pending, found.parked, found.problems.total()) == (0, 2, 7)
    # A run of theirs now would be followed by the parked message, which is older.
    assert fixed.repair.triggered == 5


PARKED = "SELECT count(*) FROM triggerkit.parked"


def test_rows_that_are_to_have_no_effect_are_counted_and_no_fault(
    settings: Settings, database: Connection
) -> None:
    with_empty = QUERY.replace(
        " ORDER BY 1;", " UNION ALL SELECT id, 'empty' FROM notes WHERE id = 1"
    )
    damage(database)
    found = look(settings, declared(with_empty))
    assert (found.empty, found.problems.total(), found.rows) == (1, 5, 5)
    assert "1" not in dict(listed(found))


PROJECT = f'''
from typing import Any
from triggerkit import Change, rows, task

@task(verify="""{QUERY}""", on=rows("public.notes"))
def copy_by_command(batch: list[Change[dict[str, Any]]]) -> None: ...
'''


def test_the_command_prints_what_it_found_and_its_exit_code_says_it(
    settings: Settings, database: Connection, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copying.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", settings.source_dsn)
    monkeypatch.setenv("REDIS_URL", settings.broker_dsn)
    monkeypatch.setenv("TRIGGERKIT_TASKS", "copying")

    def command(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(application("verify"), ["verify", "copy_by_command", *options])
        return result.exit_code, result.stdout

    code, text = command()
    assert code == 0
    assert "copy_by_command: 0 rows of public.notes, 0 in step" in text
    damage(database)
    code, text = command("--limit", "1")
    assert code == 1
    assert "5 rows of public.notes, 2 in step, 2 missing, 1 stale, 2 orphaned" in text
    assert "and 4 more" in text
    code, text = command("--json", "--limit", "1")
    assert code == 1
    assert orjson.loads(text) == [
        {
            "task": "copy_by_command", "table": "public.notes", "true": False, "rows": 5,
            "in_step": 2, "missing": 2, "stale": 1, "orphaned": 2, "empty": 0, "parked": 0,
            "pending": 0, "pending_s": None,
            "listed": [{"key": ["3"], "problem": "missing"}],
            "under_way": {"messages": 0, "runs": 0, "backfill": False},
        }
    ]  # fmt: skip
    code, text = command("--fix", "--wait", "0", "--json")
    assert code == 5
    answer = orjson.loads(text)[0]
    assert answer["fixed"]["rows"] == 5
    assert (answer["true"], answer["pending"], answer["before"]["missing"]) == (True, 5, 2)
