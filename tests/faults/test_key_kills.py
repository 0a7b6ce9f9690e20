"""Workers are killed while several runs of a key go on: never more than its task allows."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.rig.crew import Crew
from tests.servers import Servers
from triggerkit.runs.client import Client
from triggerkit.runs.run import NewRun, RunOptions
from triggerkit.settings import Settings

PER_KEY = 3

KEYS = 4

#: Runs of each key.
RUNS = 300

#: Each attempt takes one of as many locks as may be held at once; the system frees those of a
#: process that is killed.
TASKS = f"""
import fcntl, os, time
from triggerkit import AbortRun, Retry, task

@task(concurrency_per_key={PER_KEY}, retry=Retry(max_attempts=60, min_delay_s=0.1))
def work(payload: dict) -> int:
    for place in range({PER_KEY}):
        with open(f"lock-{{payload['key']}}-{{place}}", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            time.sleep(0.05)
            return place
    raise AbortRun("more than {PER_KEY} runs of one key at once")
"""

_ENDED = """
SELECT status, output, concurrency_key FROM triggerkit.runs WHERE finished_at IS NOT NULL
"""


@pytest.mark.timeout(300)
def test_no_more_runs_of_a_key_go_on_than_its_task_allows_when_workers_die(
    servers: Servers, tmp_path: Path
) -> None:
    seed = int(os.environ.get("TRIGGERKIT_TEST_SEED", random.randrange(10**6)))
    print("seed", seed)
    rng = random.Random(seed)
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
    environment = {"DATABASE_URL": url, "REDIS_URL": servers.redis.url}
    servers.run(_accept(environment))
    crew = Crew(tmp_path, environment, tasks=TASKS)
    crew.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            ended = _with_kills(connection, crew, rng)
    finally:
        crew.stop()
    print("deaths", len(crew.deaths))
    assert len(crew.deaths) >= 3
    # A run that was there at three deaths of its workers is given up, and says so.
    assert {status for status, _, _ in ended} <= {"completed", "crashed"}
    used = Counter((key, output) for status, output, key in ended if status == "completed")
    assert len(used) == KEYS * PER_KEY


def _with_kills(
    connection: psycopg.Connection[Any], crew: Crew, rng: random.Random
) -> list[tuple[str, str | None, str]]:
    """Kill a worker now and then until all has ended; how each run has."""
    until, next_kill = time.monotonic() + 200, time.monotonic() + 3
    while len(ended := connection.execute(_ENDED).fetchall()) < KEYS * RUNS:
        assert time.monotonic() < until, len(ended)
        if time.monotonic() > next_kill:
            crew.kill_one(rng)
            next_kill = time.monotonic() + 2
        time.sleep(0.05)
    return ended


async def _accept(environment: dict[str, str]) -> None:
    client = await Client.open(Settings.parse(environment))
    await client.accept(
        [
            NewRun(
                task="work",
                queue="default",
                max_attempts=60,
                payload=b'{"key":%d}' % (number % KEYS),
                concurrency_key=f"key {number % KEYS}",
                options=RunOptions(concurrency_per_key=PER_KEY),
            )
            for number in range(KEYS * RUNS)
        ]
    )
    await client.close()
