"""Workers are killed while retention removes very many lines: no worker that lives loses a run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.rig.crew import Crew
from tests.servers import Servers
from triggerkit.runs.client import Client
from triggerkit.runs.run import NewRun
from triggerkit.settings import Settings

LINES = 300

#: Runs that workers execute meanwhile.
RUNS = 3_000

#: Seconds between two kills: a worker is to live longer than a lease now and then.
BETWEEN_KILLS_S = 5.0

_OLD_RUNS = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, finished_at)
SELECT 'run_0' || lpad(n::text, 25, '0'), 'in_thread', 'default', 'completed', 1, '{}',
    '1970-01-02' FROM generate_series(1, %s) n
"""

_LINES = f"""
INSERT INTO triggerkit.spans (run_id, attempt, kind, name, level, started_at)
SELECT id, 1, 'log', 'a line', 'stdout', '1970-01-02' FROM triggerkit.runs,
    generate_series(1, {LINES}) WHERE finished_at IS NOT NULL
"""

_OLD = "SELECT count(*) FROM triggerkit.runs WHERE id < 'run_01'"

_UNFINISHED = "SELECT count(*) FROM triggerkit.runs WHERE finished_at IS NULL"

_WORKERS = "SELECT id, pid, parent_pid FROM triggerkit.workers"

_LOST = "SELECT run_id, worker FROM triggerkit.attempts WHERE status = 'crashed'"


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Servers]:
    """Servers that no other test uses: it makes their disk busy."""
    servers = Servers(tmp_path / "servers")
    servers.start()
    yield servers
    servers.stop()


@pytest.mark.timeout(600)
def test_no_living_worker_loses_a_run_while_ten_thousand_are_removed(
    own_servers: Servers, tmp_path: Path
) -> None:
    _judge(own_servers, tmp_path, old_runs=10_000, seconds=400)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_living_worker_loses_a_run_while_a_hundred_thousand_are_removed(
    own_servers: Servers, tmp_path: Path
) -> None:
    _judge(own_servers, tmp_path, old_runs=100_000, seconds=3000)


def _judge(own_servers: Servers, tmp_path: Path, *, old_runs: int, seconds: float) -> None:
    seed = int(os.environ.get("TRIGGERKIT_TEST_SEED", random.randrange(10**6)))
    print("seed", seed)
    rng = random.Random(seed)
    url = own_servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
        connection.execute("CREATE TABLE public.effects (number int PRIMARY KEY)")
        connection.execute(_OLD_RUNS, [old_runs])
        connection.execute(_LINES)
    environment = {"DATABASE_URL": url, "REDIS_URL": own_servers.redis.url}
    own_servers.run(_accept(environment))
    crew = Crew(tmp_path, environment)
    began = time.monotonic()
    crew.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            pids = _with_kills(connection, crew, rng, began + seconds)
            lost = connection.execute(_LOST).fetchall()
    finally:
        crew.stop()
    print(f"{time.monotonic() - began:.0f} s, deaths", len(crew.deaths), "runs cut", len(lost))
    dead = {death.pid for death in crew.deaths}
    assert len(dead) >= 3
    wrongly = [(run_id, worker) for run_id, worker in lost if not dead & set(pids[worker])]
    assert wrongly == []
    logs = "".join(log.read_text() for log in tmp_path.glob("worker-*.log"))
    assert "ended too late" not in logs


def _with_kills(
    connection: psycopg.Connection[Any], crew: Crew, rng: random.Random, until: float
) -> dict[str, tuple[int, int]]:
    """Kill a worker now and then until all is removed and done; the processes of each worker."""
    pids: dict[str, tuple[int, int]] = {}
    next_kill = time.monotonic() + BETWEEN_KILLS_S
    while _count(connection, _OLD) or _count(connection, _UNFINISHED):
        assert time.monotonic() < until, (_count(connection, _OLD), _count(connection, _UNFINISHED))
        pids.update({i: (pid, parent) for i, pid, parent in connection.execute(_WORKERS)})
        if time.monotonic() > next_kill:
            crew.kill_one(rng)
            next_kill = time.monotonic() + BETWEEN_KILLS_S
        time.sleep(0.05)
    return pids


def _count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


async def _accept(environment: dict[str, str]) -> None:
    client = await Client.open(Settings.parse(environment))
    await client.accept(
        [
            NewRun(
                task="on_loop" if number % 2 else "in_thread",
                queue="default",
                max_attempts=60,
                payload=b'{"number":%d}' % number,
            )
            for number in range(RUNS)
        ]
    )
    await client.close()
