"""A command asks the database as often for many rows as for few."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from tests.acceptance.bad_input import commands
from tests.integration.pipeline import execute
from triggerkit.cli.main import application
from triggerkit.settings import Settings
from triggerkit.tasks.declare import declared

TASKS = """
from typing import Any
from triggerkit import Change, changes, task

@task(on=changes("public.orders", when_changed=["state"]))
def ship_order(change: Change[dict[str, Any]]) -> None: ...
"""

#: Rows of everything that is listed or looked through. Tables are as many as that, too.
MANY = 60
ROWS = """
DO $$ BEGIN FOR i IN 1..%(many)s LOOP
    EXECUTE format('CREATE TABLE public.orders_%%s (id int PRIMARY KEY, state text)', i);
    EXECUTE format('ALTER PUBLICATION triggerkit ADD TABLE public.orders_%%s', i);
END LOOP; END $$;
INSERT INTO triggerkit.endpoints (name, url)
    SELECT 'endpoint_' || i, 'http://127.0.0.1:1/' || i FROM generate_series(1, %(many)s) i;
INSERT INTO triggerkit.consumers (name, database_id, endpoint_id, kind, definition)
    SELECT 'consumer_' || i, c.database_id, e.id, c.kind, c.definition || jsonb_build_object(
        'name', 'consumer_' || i, 'tables', jsonb_build_array('public.orders_' || i),
        'when_changed', '["gone"]'::jsonb, 'filters',
        '[{"column": "state", "operator": "==", "value": "new", "type": "integer"}]'::jsonb)
    FROM triggerkit.consumers c, generate_series(1, %(many)s) i
    JOIN triggerkit.endpoints e ON e.name = 'endpoint_' || i WHERE c.name = 'ship_order';
INSERT INTO triggerkit.cursors (consumer_id, partition, position)
    SELECT c.id, n, 0 FROM triggerkit.consumers c, generate_series(0, 7) n ON CONFLICT DO NOTHING;
INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, state)
    SELECT c.id, 'public', 'orders', s
    FROM triggerkit.consumers c, unnest('{failed,paused,completed}'::text[]) s;
INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, state)
    SELECT c.id, n, 1, n::text, '{}', 'refused', 'failing'
    FROM triggerkit.consumers c, generate_series(0, 7) n;
INSERT INTO triggerkit.gaps (consumer_id, kind, cause, ended_at)
    SELECT id, 'slot', 'the slot was lost', now() FROM triggerkit.consumers;
INSERT INTO triggerkit.queues (name, paused_at)
    SELECT 'queue_' || i, now() FROM generate_series(1, %(many)s) i;
INSERT INTO triggerkit.runs (id, task, queue, status, payload, error, max_attempts,
    finished_at)
    SELECT 'run_' || lpad(i::text, 26, '0'), 'task_' || i, 'queue_' || i, 'failed', '{}',
        '{"type": "ValueError", "message": "no", "traceback": "ValueError: no"}', 5, now()
    FROM generate_series(1, %(many)s) i;
"""

#: What looks through them, besides the lists.
LOOKS = [
    ["status"],
    ["check"],
    ["plan"],
    ["apply"],
    ["runs", "errors"],
    ["consumers", "show", "ship_order"],
]


@pytest.fixture
def project(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose one consumer is there."""
    (tmp_path / "order_tasks.py").write_text(TASKS)
    (tmp_path / "triggerkit.toml").write_text('tasks = ["order_tasks"]\n')
    monkeypatch.chdir(tmp_path)
    # Those of other projects that were loaded in this process.
    declared.clear()
    monkeypatch.delitem(sys.modules, "order_tasks", raising=False)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    asyncio.run(execute(settings, "CREATE TABLE orders (id int PRIMARY KEY, state text)"))
    assert "created consumer ship_order" in output(["apply"])
    return tmp_path


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the statements that are sent meanwhile."""
    sent: list[str] = []
    own = psycopg.AsyncCursor.execute

    async def execute(self: Any, query: Any, *given: Any, **options: Any) -> Any:
        sent.append(str(query).strip())
        return await own(self, query, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncCursor, "execute", execute)
        yield sent


def output(words: list[str]) -> str:
    done = CliRunner().invoke(application(words[0]), words)
    assert isinstance(done.exception, SystemExit | None), (words, done.output, done.exception)
    return done.output


def test_a_command_asks_as_often_for_many_rows_as_for_few(
    project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = [list(command.words) for command in commands() if command.words[-1] == "list"]
    assert ["consumers", "list"] in lists
    assert ["endpoints", "list"] in lists
    few: dict[str, int] = {}
    looks = [*lists, *LOOKS]
    for words in looks:
        with counted(monkeypatch) as sent:
            output(words)
        few[" ".join(words)] = len(sent)
    with psycopg.connect(database_url, autocommit=True) as connection:
        psycopg.ClientCursor(connection).execute(ROWS, {"many": MANY})
    # What is new is written down, once for each table.
    output(["apply"])
    more: dict[str, Any] = {}
    for words in looks:
        with counted(monkeypatch) as sent:
            said = output(words)
        if len(sent) > few[" ".join(words)] + MANY / 10:
            more[" ".join(words)] = (few[" ".join(words)], Counter(sent).most_common(3))
        if words == ["consumers", "list"]:
            assert said.count("\n") > MANY
    assert not more
