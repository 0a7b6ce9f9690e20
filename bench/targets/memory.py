"""T6: the most memory `triggerkit stream` holds, in its two hardest moments."""

from __future__ import annotations

from pathlib import Path

from bench.figures import Figure, Report, Scale, Target
from bench.items import SCHEMA, TASKS, TRANSACTION_ROWS, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, one, servers, work_folder, write_project

#: Most seconds until the log holds all changes, and until all are delivered.
CAPTURE_S = 300.0
DELIVERY_S = 900.0

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

_LOGGED = "SELECT coalesce(sum(next_position - 1), 0) FROM triggerkit.databases"
_DELIVERED = "SELECT coalesce(sum(items), 0) FROM triggerkit.runs"

#: In MB (10⁶ bytes) of resident memory.
TARGET = Target("≤", 200)


def run(scale: Scale) -> Report:
    """Measure both moments, each in a new process on a new database."""
    count = scale.pick(50_000, 1_000_000)
    at_rest, transaction = _one_transaction(count)
    behind = _consumer_behind(count)
    figures = [
        Figure("stream at rest, resident", at_rest, "MB"),
        Figure(f"  a transaction of {count:,} rows, peak", transaction, "MB", TARGET),
        Figure(f"  a consumer {count:,} messages behind, peak", behind, "MB", TARGET),
    ]
    raw = {
        "rows": count,
        "at_rest_mb": at_rest,
        "one_transaction_peak_mb": transaction,
        "consumer_behind_peak_mb": behind,
    }
    return Report(figures, raw)


def _one_transaction(count: int) -> tuple[float, float]:
    """The memory at rest, and the peak while one transaction is captured and delivered."""
    with work_folder() as folder, servers(folder / "state") as settings:
        project = _prepare(folder, settings)
        with (
            Program(project, ["triggerkit", "serve"], settings),
            Program(project, ["triggerkit", "stream"], settings) as stream,
            connect(settings["DATABASE_URL"]) as connection,
        ):
            at_rest = stream.peak_memory_mb()
            insert(connection, count, rows_each=count)
            _wait_for(connection, _LOGGED, count, CAPTURE_S)
            _wait_for(connection, _DELIVERED, count, DELIVERY_S)
            return at_rest, stream.peak_memory_mb()


def _consumer_behind(count: int) -> float:
    """The peak while the endpoint is down for `count` messages, and while it then gets them."""
    with work_folder() as folder, servers(folder / "state") as settings:
        project = _prepare(folder, settings)
        with (
            Program(project, ["triggerkit", "stream"], settings) as stream,
            connect(settings["DATABASE_URL"]) as connection,
        ):
            insert(connection, count, TRANSACTION_ROWS)
            _wait_for(connection, _LOGGED, count, CAPTURE_S)
            with Program(project, ["triggerkit", "serve"], settings):
                _wait_for(connection, _DELIVERED, count, DELIVERY_S)
            return stream.peak_memory_mb()


def _prepare(folder: Path, settings: dict[str, str]) -> Path:
    """A project whose table and consumer are there, before any process runs."""
    settings |= {"TRIGGERKIT_WEBHOOK_SECRET": SECRET, "TRIGGERKIT_PORT": "8398"}
    write_project(folder / "project", TASKS, SCHEMA)
    with connect(settings["DATABASE_URL"]) as connection:
        connection.execute(SCHEMA)
    run_to_end(folder / "project", ["triggerkit", "apply"], settings)
    return folder / "project"


def _wait_for(connection: Connection, query: str, count: int, deadline_s: float) -> None:
    wait_until(lambda: bool(one(connection, query) >= count), deadline_s, query, 0.5)
