"""Ten thousand runs while workers are killed, Redis or RabbitMQ restarted, emptied and stopped, and
Postgres restarted: every run ends, none is lost, none is executed twice at once."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.faults.rig.crew import Crew, overlaps, recoveries
from tests.rabbitmq import RabbitmqServer, running_rabbitmq
from tests.servers import Servers
from triggerkit.runs.client import Client
from triggerkit.runs.run import NewRun
from triggerkit.settings import Settings

RUNS = 10_000

#: Seconds for which Redis or RabbitMQ is away in the midst of it.
AWAY_S = 10.0

#: Attempts that begin between two kills, and seconds after which there is one all the same: on a
#: busy machine kills by the clock would come faster than processes start, and none would work.
ATTEMPTS_BETWEEN, LONGEST_BETWEEN_S = 100, 20.0

#: Seconds within which a killed worker's runs execute again, servers being there.
RECOVERY_S = 15.0

DRAIN_S = 180.0

#: What is done to a server, and its name.
Fault = tuple[str, Callable[[], None]]


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Servers]:
    """Servers that no other test uses, since they are restarted."""
    servers = Servers(tmp_path / "servers")
    servers.start()
    yield servers
    servers.stop()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitmqServer]:
    """The same of RabbitMQ."""
    yield from running_rabbitmq()


@pytest.mark.timeout(1000)
def test_nothing_is_lost_or_done_twice_at_once_when_anything_dies(
    own_servers: Servers, tmp_path: Path
) -> None:
    transport = {"REDIS_URL": own_servers.redis.url}
    slowest_s = _judge(own_servers, tmp_path, transport, _redis_faults(own_servers))
    assert slowest_s <= RECOVERY_S


@pytest.mark.timeout(1000)
def test_the_same_over_rabbitmq(
    own_servers: Servers, own_rabbitmq: RabbitmqServer, tmp_path: Path
) -> None:
    # But for the time of recovery: once RabbitMQ was emptied, runs of a dead worker wait with all
    # others that were pushed again, since there they have no rank.
    _judge(own_servers, tmp_path, own_rabbitmq.settings(), _rabbitmq_faults(own_rabbitmq))


def _judge(
    own_servers: Servers, tmp_path: Path, transport: dict[str, str], faults: list[Fault]
) -> float:
    """Have it happen and judge it; the seconds of the slowest recovery."""
    seed = int(os.environ.get("TRIGGERKIT_TEST_SEED", random.randrange(10**6)))
    print("seed", seed)
    rng = random.Random(seed)
    url = own_servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
        connection.execute("CREATE TABLE public.effects (number int PRIMARY KEY)")
    environment = {"DATABASE_URL": url, **transport}
    own_servers.run(_accept(environment))
    crew = Crew(tmp_path, environment)
    crew.start()
    try:
        restart = ("Postgres restarted", lambda: _restart_postgres(own_servers))
        away = _with_kills(crew, rng, url, [*faults, restart])
        assert _drained(url, DRAIN_S), _states(url)
    finally:
        crew.stop()

    states = _states(url)
    print("states", states, "deaths", len(crew.deaths))
    assert sum(states.values()) == RUNS
    # A run that was there at three deaths of its workers is given up, and says so.
    assert set(states) <= {"completed", "crashed"}
    with psycopg.connect(url, autocommit=True) as connection:
        without = connection.execute(
            "SELECT count(*) FROM triggerkit.runs WHERE status = 'completed' AND "
            "(payload::jsonb ->> 'number')::int NOT IN (SELECT number FROM public.effects)"
        ).fetchone()
        effects = connection.execute("SELECT count(*) FROM public.effects").fetchone()
    assert without == (0,)
    assert effects is not None
    assert states["completed"] <= effects[0] <= RUNS

    notes = crew.notes()
    assert list(overlaps(notes, crew.deaths)) == []
    undisturbed = [
        found
        for found in recoveries(notes, crew.deaths)
        if not any(start - RECOVERY_S < found.died_at_s < end for start, end in away)
    ]
    slowest = sorted(undisturbed, key=lambda found: -found.took_s)[:5]
    print("recovered", len(undisturbed), "slowest", slowest, "away", away)
    assert len(crew.deaths) >= 20
    return slowest[0].took_s


async def _accept(environment: dict[str, str]) -> None:
    client = await Client.open(Settings.parse(environment))
    await client.accept(
        [
            NewRun(
                task="on_loop" if number % 2 else "in_thread",
                queue="default",
                max_attempts=60,
                payload=b'{"number":%d}' % number,
                concurrency_key=f"row/{number % 700}" if number % 10 == 0 else None,
            )
            for number in range(RUNS)
        ]
    )
    await client.close()


def _redis_faults(servers: Servers) -> list[Fault]:
    def flush() -> None:
        redis.Redis.from_url(servers.redis.url).flushall()

    def restart(away_s: float = 0.0) -> None:
        servers.run(servers.redis.stop(force=True))
        time.sleep(away_s)
        servers.run(servers.redis.start())

    return [
        ("Redis flushed", flush),
        ("Redis restarted", restart),
        ("Redis away", lambda: restart(AWAY_S)),
    ]


def _rabbitmq_faults(server: RabbitmqServer) -> list[Fault]:
    def restart(away_s: float = 0.0) -> None:
        with server.away(force=True):
            time.sleep(away_s)

    return [
        ("RabbitMQ emptied", server.lose_data),
        ("RabbitMQ restarted", restart),
        ("RabbitMQ away", lambda: restart(AWAY_S)),
    ]


def _restart_postgres(servers: Servers) -> None:
    servers.run(servers.postgres.stop(force=True))
    servers.run(servers.postgres.start())


def _with_kills(
    crew: Crew, rng: random.Random, url: str, faults: list[Fault]
) -> list[tuple[float, float]]:
    """Kill a worker every second, or less often, until little is left, each server's fault once in
    between; when servers were away (monotonic seconds)."""
    away: list[tuple[float, float]] = []
    started = time.monotonic()
    killed_at, next_at = 0, started
    due = [started + 6 * (place + 1) for place in range(len(faults))]
    while due or _unfinished(url) > RUNS / 20:
        time.sleep(1.0)
        if (begun := crew.attempts()) >= killed_at + ATTEMPTS_BETWEEN or time.monotonic() > next_at:
            crew.kill_one(rng)
            killed_at, next_at = begun, time.monotonic() + LONGEST_BETWEEN_S
        if due and time.monotonic() > due[0]:
            due.pop(0)
            name, fault = faults.pop(0)
            began = time.monotonic()
            fault()
            away.append((began, time.monotonic() + 1.0))
            print(name, f"{away[-1][1] - began:.1f} s, unfinished", _unfinished(url))
        assert time.monotonic() < started + 600, _states(url)
    return away


def _drained(url: str, deadline_s: float) -> bool:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if _unfinished(url) == 0:
            return True
        time.sleep(0.2)
    return False


def _unfinished(url: str) -> int:
    return int(_ask(url, "SELECT count(*) FROM triggerkit.runs WHERE finished_at IS NULL")[0][0])


def _states(url: str) -> Counter[str]:
    return Counter(dict(_ask(url, "SELECT status, count(*) FROM triggerkit.runs GROUP BY 1")))


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()
