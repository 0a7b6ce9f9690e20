"""T11: what a change costs by the number of consumers and tables, and a run by that of tasks."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from bench.cpu import server_s, tree_s
from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, TRANSACTION_ROWS, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import ROOT, Connection, connect, one, servers, work_folder

#: Most seconds one round may take.
ROUND_S = 600.0

#: Changes before each round, so that every process has done each of its steps.
WARM_UP = 1000

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

#: Seconds between changes that come alone.
PACE_S = 0.01

#: Tables that one transaction makes: each takes some of the server's locks.
TABLES_TOGETHER = 200

#: Messages of one push.
BATCH_SIZE = 500

_TABLE = "CREATE TABLE IF NOT EXISTS t{number} (LIKE items INCLUDING ALL)"

#: The last position that is logged, and what was delivered up to now.
_DELIVERED = "SELECT coalesce(sum(messages), 0) FROM triggerkit.deliveries WHERE status = 200"

_ONE_RUN = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, rank)
SELECT 'run_' || lpad((%(first)s::bigint + n)::text, 26, '0'), 'task_' || n %% %(tasks)s, 'default',
    'queued', 3, '{}', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 60000000 + n
FROM generate_series(1, %(count)s) n
"""

_DONE = "SELECT count(*) FROM triggerkit.runs WHERE status = 'completed'"


@dataclass(frozen=True, slots=True)
class Case:
    """A number of consumers of `items`, of others whose table nobody writes to, and of tables that
    one of the consumers follows beside it."""

    name: str
    consumers: int = 1
    quiet: int = 0
    tables: int = 0

    def project(self, port: int) -> str:
        """Return the project's file."""
        lines = ["tasks = []", "[endpoints.taker]", f'url = "http://127.0.0.1:{port}/"']
        for number in range(self.consumers):
            others = [f"public.t{table}" for table in range(self.tables)] if not number else []
            lines += _consumer(f"items_{number}", ["public.items", *others])
        for number in range(self.quiet):
            lines += _consumer(f"quiet_{number}", [f"public.t{number}"])
        return "\n".join(lines)


def _consumer(name: str, tables: list[str]) -> list[str]:
    return [
        f"[consumers.{name}]",
        f"tables = {tables}".replace("'", '"'),
        'endpoint = "taker"',
        f"batch_size = {BATCH_SIZE}",
    ]


ONE = Case("1 consumer")
QUIET = Case("200 quiet consumers", quiet=200)
CASES: dict[Case, Target | None] = {
    Case("10 consumers of one table", consumers=10): None,
    Case("100 consumers of one table", consumers=100): Target("≤", 20),
    QUIET: Target("≤", 1.5),
    Case("5,000 published tables", tables=5000): Target("≤", 1.2),
}


def run(scale: Scale) -> Report:
    """Measure each case beside that of one consumer, in turns; then one task beside a thousand."""
    count, rounds = scale.pick(5_000, 20_000), scale.pick(1, 3)
    costs: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    with work_folder() as folder, servers(folder / "state") as found:
        port = _free_port()
        taker = Program(folder, ["bench.receiver", str(port)], {"PYTHONPATH": str(ROOT)})
        with taker:
            prepared = {
                case: Installation.of(case, folder / f"case{number}", found, port)
                for number, case in enumerate([ONE, *CASES])
            }
            for _ in range(rounds):
                for case, installation in prepared.items():
                    costs[case.name].append(installation.us_per_change(count, TRANSACTION_ROWS))
                for case in (ONE, QUIET):
                    alone = prepared[case].us_per_change(scale.pick(200, 1000), 1)
                    costs[f"{case.name}, each change alone"].append(alone)
        runs = _tasks_report(folder, found, scale)
    return _report(count, dict(costs), runs)


def _report(
    count: int, costs: dict[str, list[dict[str, float]]], runs: dict[str, list[float]]
) -> Report:
    totals = {name: [sum(cost.values()) for cost in of_case] for name, of_case in costs.items()}
    figures = [Figure(f"a change, {ONE.name}", middle(totals[ONE.name]), "µs")]
    for case, target in CASES.items():
        figures += _compared(totals, case.name, ONE.name, target)
    alone = f"{ONE.name}, each change alone"
    figures.append(Figure(f"a change, {alone}", middle(totals[alone]), "µs"))
    figures += _compared(totals, f"{QUIET.name}, each change alone", alone, CASES[QUIET])
    few, many = runs.values()
    figures += [
        *(Figure(f"a run, {name}", middle(us), "µs") for name, us in runs.items()),
        Figure("  ratio", middle([b / a for a, b in zip(few, many, strict=True)]), "x"),
    ]
    return Report(figures, {"changes": count, "us_per_change": costs, "us_per_run": runs})


def _compared(
    totals: dict[str, list[float]], name: str, beside: str, target: Target | None
) -> list[Figure]:
    ratios = [many / one_of for many, one_of in zip(totals[name], totals[beside], strict=True)]
    return [
        Figure(f"a change, {name}", middle(totals[name]), "µs"),
        Figure("  ratio", middle(ratios), "x", target),
    ]


@dataclass(frozen=True, slots=True)
class Installation:
    """A case as it is applied, in a database of its own."""

    case: Case
    folder: Path
    settings: dict[str, str]

    @classmethod
    def of(cls, case: Case, folder: Path, found: dict[str, str], port: int) -> Installation:
        """Make the database with its tables, and apply the project."""
        settings = _own_database(folder, found)
        (folder / "triggerkit.toml").write_text(case.project(port))
        with connect(settings["DATABASE_URL"]) as connection:
            # Some together: each by itself waits for the disk.
            for first in range(0, max(case.quiet, case.tables), TABLES_TOGETHER):
                last = min(first + TABLES_TOGETHER, max(case.quiet, case.tables))
                with connection.transaction():
                    for number in range(first, last):
                        connection.execute(_TABLE.format(number=number))
        run_to_end(folder, ["triggerkit", "apply"], settings)
        return cls(case, folder, settings)

    def us_per_change(self, count: int, rows_each: int) -> dict[str, float]:
        """Return the microseconds of processor time that a change costs, by who used them, in
        transactions of `rows_each`; those of one row come at a pace."""
        with (
            Program(self.folder, ["triggerkit", "stream"], self.settings) as stream,
            connect(self.settings["DATABASE_URL"]) as connection,
        ):
            self._deliver(connection, WARM_UP)
            before = {"stream": tree_s(stream.pid), "postgres": server_s(connection)}
            self._deliver(connection, count, rows_each)
            after = {"stream": tree_s(stream.pid), "postgres": server_s(connection)}
        return {name: (after[name] - before[name]) / count * 1e6 for name in before}

    def _deliver(
        self, connection: Connection, count: int, rows_each: int = TRANSACTION_ROWS
    ) -> None:
        expected = one(connection, _DELIVERED) + count * self.case.consumers
        if rows_each > 1:
            insert(connection, count, rows_each)
        else:
            for _ in range(count):
                insert(connection, 1)
                time.sleep(PACE_S)
        wait_until(
            lambda: bool(one(connection, _DELIVERED) >= expected), ROUND_S, "all delivered", 0.25
        )


def _tasks_report(folder: Path, found: dict[str, str], scale: Scale) -> dict[str, list[float]]:
    count, rounds = scale.pick(2_000, 20_000), scale.pick(1, 3)
    numbers = {"1 task": 1, "1,000 tasks": 1000}
    measured: dict[str, list[float]] = {name: [] for name in numbers}
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(_tasks(folder / f"tasks{number}", found, number))
            for name, number in numbers.items()
        }
        for turn in range(rounds):
            for name, number in numbers.items():
                measured[name].append(_us_per_run(*made[name], number, count, turn))
    return measured


@contextmanager
def _tasks(
    folder: Path, found: dict[str, str], number: int
) -> Iterator[tuple[Path, dict[str, str], Connection]]:
    settings = _own_database(folder, found)
    (folder / "triggerkit.toml").write_text('tasks = ["measured"]\n')
    tasks = "\n".join(
        f"@task\ndef task_{n}(payload: dict[str, int]) -> None:\n    pass\n" for n in range(number)
    )
    (folder / "measured.py").write_text(f"from triggerkit import task\n\n{tasks}")
    run_to_end(folder, ["triggerkit", "apply"], settings)
    with connect(settings["DATABASE_URL"]) as connection:
        yield folder, settings, connection


def _us_per_run(
    folder: Path,
    settings: dict[str, str],
    connection: Connection,
    tasks: int,
    count: int,
    turn: int,
) -> float:
    """Return the microseconds of processor time of a run, of those that wait before a worker is
    started."""
    parameters = {"first": turn * count, "tasks": tasks, "count": count}
    connection.execute(_ONE_RUN, parameters)
    expected = (turn + 1) * count
    before_s = server_s(connection)
    arguments = ["triggerkit", "worker", "--processes", "1", "--threads", "8"]
    with Program(folder, arguments, settings) as worker:
        # Loading a thousand tasks is no part of a run.
        before_s += tree_s(worker.pid)
        wait_until(
            lambda: bool(one(connection, _DONE) >= expected), ROUND_S, "all runs completed", 0.25
        )
        after_s = tree_s(worker.pid) + server_s(connection)
    return (after_s - before_s) / count * 1e6


def _own_database(folder: Path, found: dict[str, str]) -> dict[str, str]:
    folder.mkdir()
    with connect(found["DATABASE_URL"]) as connection:
        connection.execute(f"CREATE DATABASE {folder.name}")
    dsn = make_conninfo(found["DATABASE_URL"], dbname=folder.name)
    with connect(dsn) as connection:
        connection.execute(SCHEMA)
    return {
        **found,
        "DATABASE_URL": dsn,
        "TRIGGERKIT_WEBHOOK_SECRET": SECRET,
        "TRIGGERKIT_LOG_MAX_BYTES": "1TB",
        # The receiver is on this machine.
        "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8",
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
