"""What a worker that has nothing to do asks of the servers, a second."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.figures import Figure, Target
from bench.processes import Program
from bench.project import connect

TARGET = Target("≤", 1)

#: Seconds after which a worker has done what it does once.
SETTLING_S = 2.0

#: One statement in the server's log; a prepared one is `execute NAME`.
_STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*):\s*(.*)")


@dataclass(frozen=True, slots=True)
class Idle:
    """What was asked in `seconds`: statements of Postgres and commands of Redis, by their names."""

    seconds: float
    queries: Counter[str]
    commands: Counter[str]

    def figures(self) -> list[Figure]:
        """The two figures with their target."""
        return [
            Figure("idle worker: queries", self.queries.total() / self.seconds, "/s", TARGET),
            Figure("  Redis commands", self.commands.total() / self.seconds, "/s", TARGET),
        ]

    def as_json(self) -> dict[str, Any]:
        """What was asked, most often first."""
        return {
            "seconds": round(self.seconds, 1),
            "queries": dict(self.queries.most_common()),
            "commands": dict(self.commands.most_common()),
        }


def measure_idle(
    worker: Callable[[], Program], settings: dict[str, str], state: Path, seconds: int
) -> Idle:
    """Run `worker` with its defaults and nothing to do, and count by what the servers say."""
    log = state / "log" / "postgres.log"
    with (
        redis.Redis.from_url(settings["REDIS_URL"], decode_responses=True) as client,
        connect(settings["DATABASE_URL"]) as connection,
    ):
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            with worker():
                time.sleep(SETTLING_S)
                logged, commands, started = log.stat().st_size, _commands(client), time.monotonic()
                time.sleep(seconds)
                taken = time.monotonic() - started
                commands = _commands(client) - commands
                with log.open(errors="replace") as file:
                    file.seek(logged)
                    queries = Counter(_STATEMENT.findall(file.read()))
        finally:
            connection.execute("ALTER SYSTEM RESET log_statement")
            connection.execute("SELECT pg_reload_conf()")
    # The look before is counted in the look after.
    commands["info"] -= 1
    return Idle(taken, queries, +commands)


def _commands(client: redis.Redis) -> Counter[str]:
    statistics: dict[str, Any] = client.info("commandstats")
    return Counter(
        {name.removeprefix("cmdstat_"): values["calls"] for name, values in statistics.items()}
    )
