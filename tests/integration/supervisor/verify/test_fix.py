"""`triggerkit verify` on a real database: what is found or pending, and what --fix triggers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import psycopg
import pytest
from pydantic import BaseModel, SecretStr
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from tests.integration.pipeline import declare, streaming
from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from tests.receiver import Received, Receiver
from triggerkit import Change, Mismatch, Task, changes, rows, task
from triggerkit.cli.main import application
from triggerkit.consumers.backfill import current_rows
from triggerkit.errors import ConfigurationError, PreflightFailed, TriggerkitError
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


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


def declared(query: Any = QUERY) -> Task[Any, Any, Any]:
    """A batch task that does nothing: the tests look at its runs."""

    @task(verify=query, on=rows("public.notes"), batch_size=2)
    def copy(batch: Batch) -> None: ...

    return copy


class Note(BaseModel):
    """A row whose detail is less than the column may hold."""

    id: int
    detail: dict[str, int] | None = None


def look(settings: Settings, looked_at: Task[Any, Any, Any], limit: int = 20) -> Verification:
    async def once() -> Verification:
        client = await Client.open(settings)
        try:
            return await verify(settings, client, verifiable(looked_at), limit)
        finally:
            await client.close()

    return asyncio.run(once())


def fixed(settings: Settings, looked_at: Task[Any, Any, Any], wait_s: float = 0) -> Fixed:
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
    """Rows 1 to 5, of which 1 and 2 are in step, 3 and 4 missing, 5 stale; 6 and 7 are orphaned."""
    database.execute("INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 5) n")
    database.execute("INSERT INTO copies SELECT n, 'note ' || n FROM generate_series(1, 2) n")
    database.execute("INSERT INTO copies VALUES (5, 'old'), (6, 'note 6'), (7, 'note 7')")


def listed(found: Verification) -> list[tuple[str, str]]:
    return [(row.key[0], row.problem) for row in found.listed]


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


def test_a_key_of_several_columns_is_found_and_fixed(
    settings: Settings, database: Connection, state: RunState
) -> None:
    database.execute(
        "CREATE TABLE pairs (at timestamptz, name text, doc jsonb, PRIMARY KEY (name, at));"
        """INSERT INTO pairs VALUES ('2026-01-02', 'a', '{"n": 1}')"""
    )

    @task(
        verify="SELECT name, at, 'missing' FROM pairs"
        " UNION ALL SELECT 'b', '2026-01-03'::timestamptz, 'orphaned'",
        on=rows("public.pairs"),
    )
    def each(change: Change[dict[str, Any]]) -> None: ...

    assert [row.key for row in look(settings, each).listed] == [
        ("a", "2026-01-02 00:00:00+00"), ("b", "2026-01-03 00:00:00+00"),
    ]  # fmt: skip
    assert len(fixed(settings, each).repair.run_ids) == 2
    read, delete = (orjson.loads(p) for p in state.rows("SELECT payload FROM triggerkit.runs"))
    at = "2026-01-02T00:00:00.000000Z"
    assert read["action"] == "read"
    assert read["record"] == {"at": at, "name": "a", "doc": {"n": 1}}
    assert read["metadata"]["record_pks"] == ["a", "2026-01-02 00:00:00+00"]
    assert delete["action"] == "delete"
    assert delete["record"] == {"name": "b", "at": at.replace("02T", "03T")}
    keys = state.rows("SELECT concurrency_key FROM triggerkit.runs")
    assert keys[0] == 'row/public.pairs:["a","2026-01-02 00:00:00+00"]'


def test_fix_triggers_reads_of_rows_and_deletes_of_orphans(
    settings: Settings, database: Connection, state: RunState
) -> None:
    damage(database)
    database.execute("""UPDATE notes SET detail = '{"n": [1.5, null]}' WHERE id = 3""")
    before = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    result = fixed(settings, declared())
    assert (result.repair.triggered, result.is_over) == (5, False)
    runs = state.rows("SELECT payload, concurrency_key FROM triggerkit.runs ORDER BY seq")
    payloads = [orjson.loads(payload) for payload, _ in runs]
    messages = {m["record"]["id"]: m for payload in payloads for m in payload["data"]}
    assert {k: m["action"] for k, m in messages.items()} == {
        3: "read", 4: "read", 5: "read", 6: "delete", 7: "delete",
    }  # fmt: skip
    assert messages[3]["record"] == {"id": 3, "text": "note 3", "detail": {"n": [1.5, None]}}
    assert messages[6]["record"] == {"id": 6}
    assert before is not None
    assert messages[3]["metadata"]["commit_lsn"] >= before[0]
    assert all(len(payload["data"]) <= 2 for payload in payloads)
    assert {key.rpartition("/")[0] for _, key in runs} == {"copy"}


def test_what_was_triggered_is_pending_until_its_runs_have_ended(
    settings: Settings, database: Connection
) -> None:
    damage(database)
    result = fixed(settings, declared())
    assert not result.before.is_true
    assert result.after.is_true
    assert (result.after.pending, result.after.under_way.runs) == (5, len(result.repair.run_ids))


def test_fix_repairs_through_the_task_and_looks_again(
    settings: Settings, database: Connection, state: RunState
) -> None:
    damage(database)
    copy = copying(settings)
    with working(state, copy):
        result = fixed(settings, copy, wait_s=20)
    assert result.is_over
    assert result.after.is_true
    assert (result.after.pending, result.after.rows) == (0, 5)
    copies = "SELECT id, text FROM copies ORDER BY id"
    notes = "SELECT id, text FROM notes ORDER BY id"
    assert database.execute(copies).fetchall() == database.execute(notes).fetchall()


def test_fix_of_what_is_in_step_triggers_nothing(
    settings: Settings, database: Connection, state: RunState
) -> None:
    result = fixed(settings, declared())
    assert result.before.is_true
    assert state.statuses() == []


def test_a_row_that_does_not_fit_the_task_is_told_and_holds_up_no_other(
    settings: Settings, database: Connection, state: RunState
) -> None:
    damage(database)
    database.execute("""UPDATE notes SET detail = '"a string"' WHERE id = 3""")

    @task(verify=QUERY, on=rows("public.notes"), batch_size=100)
    def copy(batch: list[Change[Note]]) -> None: ...

    result = fixed(settings, copy)
    assert (result.repair.triggered, result.repair.refused) == (4, 1)
    assert "detail" in (result.repair.refusal or "")


def test_fix_does_not_take_a_place_in_the_wal_whose_past_cannot_be_seen_yet(
    settings: Settings, database: Connection, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(database)
    monkeypatch.setattr(current_rows, "VISIBLE_S", 0.2)
    with psycopg.connect(settings.source_dsn) as application:
        application.execute("UPDATE notes SET text = 'not yet' WHERE id = 3")
        with pytest.raises(TriggerkitError, match="has been writing"):
            fixed(settings, declared())
        assert state.statuses() == []
        application.commit()
    assert fixed(settings, declared()).repair.triggered == 5


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


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1", "answers 1 columns"),
        ("SELECT id, 'missing', 3 FROM notes", "answers 3 columns"),
        ("SELECT 1, 'lost'", "a problem that is none of missing, stale, orphaned"),
        ("SELECT NULL, 'missing'", "answers a null"),
        ("SELECT id FROM notes WHERE", "syntax error"),
        ("DELETE FROM notes RETURNING id, 'missing'", "syntax error"),
        ("SELECT nextval('numbers'), 'missing'", "read-only transaction"),
    ],
)
def test_a_query_that_cannot_be_used_is_a_mistake_that_is_named(
    settings: Settings, database: Connection, query: str, said: str
) -> None:
    damage(database)
    database.execute("CREATE SEQUENCE numbers")
    with pytest.raises(ConfigurationError, match=f"task copy: verify= .*{said}"):
        look(settings, declared(query))


def test_a_table_that_is_not_there_is_a_failed_preflight(
    settings: Settings, database: Connection
) -> None:
    database.execute("DROP TABLE copies")
    with pytest.raises(PreflightFailed, match='relation "copies" does not exist'):
        look(settings, declared())
    database.execute("DROP TABLE notes")
    with pytest.raises(PreflightFailed, match=r"public\.notes does not exist"):
        look(settings, declared())


def test_rows_that_a_policy_hides_are_not_taken_for_gone(
    settings: Settings, database: Connection
) -> None:
    damage(database)
    database.execute(
        "ALTER TABLE copies ENABLE ROW LEVEL SECURITY; CREATE ROLE reader LOGIN;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    )
    source = psycopg.conninfo.make_conninfo(settings.source_dsn, user="reader")
    as_reader = settings.model_copy(
        update={
            "database_url": SecretStr(source),
            "triggerkit_state_url": SecretStr(settings.state_dsn),
        }
    )
    try:
        with pytest.raises(PreflightFailed, match="row-level security"):
            look(as_reader, declared())
    finally:
        database.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_verify_is_for_one_table_and_what_says_how(settings: Settings) -> None:
    @task
    def silent(payload: dict[str, Any]) -> None: ...

    @task(verify=QUERY)
    def followed_by_nothing(batch: Batch) -> None: ...

    with pytest.raises(ConfigurationError, match="does not say what its effects are"):
        verifiable(silent)
    with pytest.raises(ConfigurationError, match="on= must name one"):
        verifiable(followed_by_nothing)


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
    assert "copy_by_command: 0 rows of public.notes, every effect in step" in text
    damage(database)
    code, text = command("--limit", "1")
    assert code == 1
    assert "5 rows of public.notes, 2 missing, 1 stale, 2 orphaned" in text
    assert "and 4 more" in text
    code, text = command("--json", "--limit", "1")
    assert code == 1
    assert orjson.loads(text) == [
        {
            "task": "copy_by_command", "table": "public.notes", "true": False, "rows": 5,
            "missing": 2, "stale": 1, "orphaned": 2, "pending": 0,
            "listed": [{"key": ["3"], "problem": "missing"}],
            "under_way": {"messages": 0, "runs": 0, "backfill": False},
        }
    ]  # fmt: skip
    code, text = command("--fix", "--wait", "0", "--json")
    assert code == 0
    answer = orjson.loads(text)[0]
    assert answer["fixed"]["rows"] == 5
    assert (answer["true"], answer["pending"], answer["before"]["missing"]) == (True, 5, 2)
