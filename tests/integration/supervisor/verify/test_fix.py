"""What `--fix` triggers, and that it mends through the task what was found."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
import pytest
from pydantic import BaseModel

from tests.integration.run_state import RunState
from tests.integration.supervisor.verify.copies import (
    QUERY,
    Connection,
    copying,
    damage,
    declared,
    fixed,
    look,
)
from tests.integration.worker_thread import working
from triggerkit import Change, rows, task
from triggerkit.consumers.backfill import current_rows
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings


class Note(BaseModel):
    """A row whose detail is less than the column may hold."""

    id: int
    detail: dict[str, int] | None = None


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
    copy = declared()
    monkeypatch.setattr(current_rows, "VISIBLE_S", 0.2)
    with psycopg.connect(settings.source_dsn) as application:
        application.execute("UPDATE notes SET text = 'not yet' WHERE id = 3")
        with pytest.raises(TriggerkitError, match="has been writing"):
            fixed(settings, copy)
        assert state.statuses() == []
        application.commit()
    assert fixed(settings, copy).repair.triggered == 5
