"""T9: what a change costs when the log is long, against a short one, side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, TASKS, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, one, servers, work_folder, write_project
from triggerkit.consumers.health import consumer_health
from triggerkit.log import tables, writer
from triggerkit.log.entry import PARTITIONS
from triggerkit.state.connect import connect as connect_state

#: Most seconds one round may take.
ROUND_S = 300.0

#: Changes before the first round.
WARM_UP = 2000

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

#: Entries as the writer makes them, of rows like those that are measured.
_FILL = """
INSERT INTO triggerkit.events (position, database_id, partition, schema_name, table_name, key,
    action, commit_lsn, commit_idx, commit_at, xid, record)
SELECT n, %s, n %% %s, 'public', 'items', '["' || n || '"]', 'insert', 1, n, now(), 1,
    '{"id":' || n || ',"quantity":' || n || ',"name":"item ' || repeat(md5(n::text), 2)
    || '","description":"' || repeat(md5((-n)::text), 3)
    || 'description","updated_at":"2026-01-01T00:00:00.000000Z"}'
FROM generate_series(%s::bigint, %s::bigint) n
"""

_COMPLETED = """
SELECT coalesce(sum(items), 0) FROM triggerkit.runs WHERE status = 'completed'
"""

_LAST_FINISHED = "SELECT extract(epoch FROM max(finished_at))::float FROM triggerkit.runs"


def run(scale: Scale) -> Report:
    """Fill two logs, then measure the whole way in both, in turns."""
    sizes = {"small": scale.pick(10_000, 100_000), "grown": scale.pick(600_000, 10_000_000)}
    count, rounds = scale.pick(5_000, 60_000), scale.pick(2, 7)
    costs: dict[str, list[float]] = {name: [] for name in sizes}
    with work_folder() as folder, servers(folder / "state") as found, ExitStack() as running:
        dsns = {name: _prepare(folder / name, found, name, sizes[name]) for name in sizes}
        for name, dsn in dsns.items():
            running.enter_context(_streaming(folder / name, _settings(found, dsn)))
        connections = {name: running.enter_context(connect(dsn)) for name, dsn in dsns.items()}
        for connection in connections.values():
            _whole_way(connection, WARM_UP)
        for number in range(rounds):
            # Each of them is first as often as second.
            for name in sorted(sizes, reverse=bool(number % 2)):
                costs[name].append(_whole_way(connections[name], count))
        behind_s = _status_s(dsns["grown"], connections["grown"])
    return _report(sizes, count, costs, behind_s)


def _report(
    sizes: dict[str, int], count: int, costs: dict[str, list[float]], behind_s: float
) -> Report:
    ratios = [grown / small for grown, small in zip(costs["grown"], costs["small"], strict=True)]
    figures = [
        Figure(f"a change with {sizes['small']:,} in the log", middle(costs["small"]), "µs"),
        Figure(f"a change with {sizes['grown']:,} in the log", middle(costs["grown"]), "µs"),
        Figure("  ratio", middle(ratios), "x", Target("≤", 1.2)),
        Figure("lag of two consumers at its beginning, read", behind_s, "s", Target("≤", 1.0)),
    ]
    raw = {"sizes": sizes, "changes": count, "us_per_change": costs, "ratios": ratios}
    return Report(figures, {**raw, "lag_read_s": behind_s})


def _prepare(folder: Path, found: dict[str, str], name: str, size: int) -> str:
    """A project on a database of its own, with `size` entries in the log, all of them delivered."""
    with connect(found["DATABASE_URL"]) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = make_conninfo(found["DATABASE_URL"], dbname=name)
    write_project(folder, TASKS, SCHEMA)
    with connect(dsn) as connection:
        connection.execute(SCHEMA)
        run_to_end(folder, ["triggerkit", "apply"], _settings(found, dsn))
        _fill(connection, dsn, size)
    return dsn


def _fill(connection: Connection, dsn: str, size: int) -> None:
    database_id = one(connection, "SELECT id FROM triggerkit.databases")
    for first in range(1, size + 1, tables.TABLE_PARTITION_SIZE // 2):
        last = min(size, first + tables.TABLE_PARTITION_SIZE // 2 - 1)
        connection.execute("UPDATE triggerkit.databases SET next_position = %s", [first])
        asyncio.run(_make_tables(dsn, database_id))
        connection.execute(_FILL, [database_id, PARTITIONS, first, last])
    connection.execute("UPDATE triggerkit.databases SET next_position = %s", [size + 1])
    connection.execute("UPDATE triggerkit.cursors SET position = %s", [size])
    connection.execute("VACUUM ANALYZE triggerkit.events")
    connection.execute("CHECKPOINT")


async def _make_tables(dsn: str, database_id: int) -> None:
    """The tables that the entries at the log's head need, made by its writer."""
    async with writer.LogWriter.open(dsn, database_id):
        pass


def _settings(found: dict[str, str], dsn: str) -> dict[str, str]:
    own = {"DATABASE_URL": dsn, "TRIGGERKIT_WEBHOOK_SECRET": SECRET}
    # The same for each command of a project, since deliveries go there.
    port = 8390 + (dsn != make_conninfo(dsn, dbname="small"))
    return {**found, **own, "TRIGGERKIT_PORT": str(port), "TRIGGERKIT_LOG_MAX_BYTES": "1TB"}


@contextmanager
def _streaming(folder: Path, settings: dict[str, str]) -> Iterator[None]:
    with (
        Program(folder, ["triggerkit", "serve"], settings),
        Program(folder, ["triggerkit", "worker"], settings),
        Program(folder, ["triggerkit", "stream"], settings),
    ):
        yield


def _whole_way(connection: Connection, count: int) -> float:
    """Insert `count` rows and wait for their runs; microseconds a change."""
    connection.execute("CHECKPOINT")
    expected = one(connection, _COMPLETED) + count
    first_commit = insert(connection, count)
    wait_until(
        lambda: bool(one(connection, _COMPLETED) >= expected), ROUND_S, "all runs completed", 0.1
    )
    return float((one(connection, _LAST_FINISHED) - first_commit) / count * 1e6)


def _status_s(dsn: str, connection: Connection) -> float:
    """Seconds that the health of consumers takes of which two have got nothing of the log."""
    for table in ("items", "of_nobody"):
        connection.execute(
            "WITH made AS (INSERT INTO triggerkit.consumers "
            "(name, database_id, kind, state, definition) "
            "SELECT %s, id, 'changes', 'paused', %s FROM triggerkit.databases RETURNING id) "
            "INSERT INTO triggerkit.cursors (consumer_id, partition, position) "
            "SELECT id, p, 0 FROM made, generate_series(0, %s) p",
            [
                f"behind in {table}",
                Jsonb({"kind": "changes", "tables": [f"public.{table}"]}),
                PARTITIONS - 1,
            ],
        )
    return asyncio.run(_read_health(dsn))


async def _read_health(dsn: str) -> float:
    async with await connect_state(dsn, "bench") as state:
        started = time.perf_counter()
        await consumer_health(state)
        return time.perf_counter() - started
