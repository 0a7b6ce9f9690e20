"""However large its tables are, nothing that a large installation does reads them through."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from typer.testing import CliRunner

from bench.dashboard_seed import SCHEMA, Sizes, seed, write_seeded_project
from tests.acceptance.bad_input import commands
from tests.conftest import WEBHOOK_SECRET
from tests.integration.pipeline import execute, streaming
from tests.integration.run_state import RunState, run_state
from tests.integration.serving import Site
from tests.integration.state.looked_at import Asked, looked_at, noted
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.test_plans import paths
from tests.integration.web.dashboard.visitor import dashboard
from tests.integration.worker_thread import working
from tests.receiver import Receiver
from tests.servers import Servers
from triggerkit.cli.main import application
from triggerkit.consumers import health
from triggerkit.consumers.definition import changes
from triggerkit.project import Project
from triggerkit.runs.admin import unfinished
from triggerkit.settings import Settings
from triggerkit.tasks.declare import declared
from triggerkit.tasks.registry import load_tasks

SIZES = Sizes(runs=80_000, entries=80_000, parked=60_000, queues=40, tasks=100)

#: Rows that a node of a plan may look at: what is counted, or looked through, at most.
ENOUGH = 30_000

#: What pages are filtered by.
NAMES = {
    "table": "things_3",
    "key": "17",
    "consumer": "task_003",
    "task": "task_003",
    "queue": "queue_003",
    "batch": "run_1",
}

#: A consumer that is pulled, with so many messages that were given up as others are parked; and
#: nothing that is tried again at this moment.
MORE = """
INSERT INTO triggerkit.consumers (name, database_id, kind, definition)
SELECT 'pulled', id, 'changes', %(definition)s FROM triggerkit.databases;
INSERT INTO triggerkit.cursors (consumer_id, partition, position)
SELECT c.id, n, d.next_position - 50 FROM triggerkit.consumers c
JOIN triggerkit.databases d ON d.id = c.database_id, generate_series(0, 7) n
WHERE c.name = 'pulled';
INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, state, attempts)
SELECT c.id, n %% 8, n, 'key-' || n, '{"record":{}}', 'handed back', 'dead', 3
FROM triggerkit.consumers c, generate_series(1, %(parked)s) n WHERE c.name = 'pulled';
UPDATE triggerkit.parked SET due_at = now() + interval '1 h' WHERE state = 'failing';
"""

#: Endpoints are where the test's own server is.
MOVE = "UPDATE triggerkit.endpoints SET url = regexp_replace(url, '^https?://[^/]*', %s)"


@dataclass(frozen=True)
class Large:
    """An installation with large tables, and the folder of its project."""

    settings: Settings
    folder: Path

    def ask(self, query: str, *given: Any) -> Any:
        """Return the first column of the first row."""
        with psycopg.connect(self.settings.state_dsn, autocommit=True) as connection:
            row = connection.execute(query.encode(), given).fetchone()
        return None if row is None else row[0]


@pytest.fixture(scope="module")
def large(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    url = servers.new_database()
    settings = Settings.parse(
        {
            "DATABASE_URL": url,
            "REDIS_URL": servers.redis.url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRIGGERKIT_SECRET_KEY": KEY,
            "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        }
    )
    folder = tmp_path_factory.mktemp("large")
    write_seeded_project(folder, SIZES)
    # This comes before a test's own look at what others declared.
    before = dict(declared)
    declared.clear()
    with psycopg.connect(url, autocommit=True) as connection, pytest.MonkeyPatch.context() as here:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
        connection.execute(SCHEMA.encode())
        _enter(here, Large(settings, folder))
        output(["apply"])
        seed(connection, url, SIZES)
        definition = orjson.dumps(changes("things_5").as_json()).decode()
        given = {"definition": definition, "parked": SIZES.parked}
        psycopg.ClientCursor(connection).execute(MORE.encode(), given)
        connection.execute("VACUUM ANALYZE")
    yield Large(settings, folder)
    servers.drop_database(url)
    declared.clear()
    declared.update(before)


@pytest.fixture(autouse=True)
def here(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project; and less is counted than there is, as in a large installation."""
    _enter(monkeypatch, large)
    monkeypatch.setattr(health, "COUNTED_TOGETHER", 10_000)
    monkeypatch.setattr(health, "PARKED_COUNTED", 1_000)
    monkeypatch.setattr(unfinished, "MOST_COUNTED", 1_000)


def _enter(patched: pytest.MonkeyPatch, large: Large) -> None:
    patched.chdir(large.folder)
    patched.delitem(sys.modules, "measured", raising=False)
    for name, value in large.settings.environment().items():
        patched.setenv(name, value)


def output(words: list[str]) -> str:
    done = CliRunner().invoke(application(words[0]), words)
    assert isinstance(done.exception, SystemExit | None), (words, done.output, done.exception)
    return done.output


def check(large: Large, asked: list[Asked], fewest: int) -> None:
    """Check that of the statements, which are as many, none looks at too many rows."""
    assert len(asked) >= fewest
    found = looked_at(large.settings.state_dsn, asked)
    too_many = [one for one in found if one.rows > ENOUGH]
    assert not too_many, "\n\n".join(map(str, too_many))


def test_pages_and_metrics(large: Large) -> None:
    tasks = list(load_tasks(Project.load(large.folder)).values())
    with noted() as asked, dashboard(large.settings, tasks) as visitor:
        visitor.log_in()
        for path in paths(visitor, NAMES):
            seen = visitor.request("GET", f"/dashboard{path}")
            assert seen.status == 200, (path, seen.text)
        for _ in range(2):
            assert visitor.request("GET", "/metrics").status == 200
    check(large, asked, 35)


def test_commands(large: Large) -> None:
    run = large.ask("SELECT max(id) FROM triggerkit.runs WHERE status = 'failed'")
    at = (
        "SELECT c.name || ' ' || p.position FROM triggerkit.parked p JOIN triggerkit.consumers c "
        "ON c.id = p.consumer_id WHERE c.name <> 'pulled' AND p.state = %s LIMIT 1"
    )
    (_, waiting), dead = (large.ask(at, state).split() for state in ("waiting", "dead"))
    words = [
        *(list(command.words) for command in commands() if command.words[-1] == "list"),
        ["status"],
        ["check"],
        ["runs", "show", run],
        ["runs", "errors"],
        ["why", run],
        ["why", "public.things_3", "17"],
        ["why", waiting],
        ["trace", "public.things_3", "17"],
        ["messages", "list", "--consumer", "task_003"],
        ["messages", "list", "--state", "blocked"],
        ["messages", "show", *dead],
        ["messages", "retry", *dead],
        ["messages", "discard", *dead, "--yes"],
        ["consumers", "show", "task_003"],
        ["consumers", "replay", "task_003", "--from", f"{datetime.now(UTC):%Y-%m-%d}", "--yes"],
    ]
    with noted() as asked:
        for one in words:
            output(one)
    check(large, asked, 25)


def test_the_way_of_a_change_and_of_a_run(large: Large) -> None:
    tasks = list(load_tasks(Project.load(large.folder)).values())
    with (
        run_state(large.settings) as state,
        noted() as asked,
        dashboard(large.settings, tasks) as visitor,
        working(state, *tasks),
    ):
        state.connection.execute(MOVE, [visitor.origin])
        asyncio.run(_change(large, state, visitor.origin))
    check(large, asked, 20)


async def _change(large: Large, state: RunState, url: str) -> None:
    async with streaming(large.settings, Receiver(url=url)):
        for n in range(3):
            await execute(
                large.settings,
                f"INSERT INTO things_{n} SELECT i, 'n', 'm' FROM generate_series(1, 20) i",
                f"UPDATE things_{n} SET name = 'other'",
                f"DELETE FROM things_{n}",
            )
        await asyncio.to_thread(wait_until_done, state)


def test_pulling(large: Large) -> None:
    with noted() as asked, dashboard(large.settings) as visitor:

        def call(verb: str, **body: Any) -> Any:
            path = f"/api/v1/consumers/pulled/{verb}"
            allowed = {"authorization": f"Bearer {KEY}"}
            answer = Site(visitor.port).post(path, body, allowed)
            assert answer.status == 200, answer
            return answer.json

        ids = [one["ack_id"] for one in call("receive", batch_size=20)["data"]]
        ids += [one["ack_id"] for one in call("receive", batch_size=20)["data"]]
        assert len(ids) >= 2
        call("extend", ack_ids=ids, seconds=60)
        call("nack", ack_ids=ids[:1])
        call("ack", ack_ids=ids[1:])
        again = call("receive", batch_size=10)["data"]
        call("ack", ack_ids=[one["ack_id"] for one in again])
    check(large, asked, 8)


def wait_until_done(state: RunState) -> None:
    """Wait until the runs of the three tables' last changes are done."""
    done = (
        "SELECT count(DISTINCT source ->> 'table') FROM triggerkit.runs "
        "WHERE status = 'completed' AND created_at > now() - interval '1 min' "
        "AND (payload::jsonb) ->> 'action' = 'delete'"
    )
    state.wait_for(lambda: state.rows(done) == [3], 60.0)
