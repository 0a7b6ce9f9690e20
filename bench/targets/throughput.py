"""T1: changes a second from the commit to the batch task's completed run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from psycopg.conninfo import make_conninfo

from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, TASKS, insert
from bench.processes import run_to_end, wait_until
from bench.project import (
    ROOT,
    Connection,
    connect,
    dev,
    dev_database,
    one,
    work_folder,
    write_project,
)
from bench.rivals.debezium import Debezium
from bench.rivals.own_environment import NotInstalled
from bench.targets import foreign

#: Most seconds one round may take.
ROUND_S = 300.0

#: Changes before the first round, so that every process has done each of its steps.
WARM_UP = 5000

_COMPLETED = """
SELECT coalesce(sum(items), 0) FROM triggerkit.runs WHERE status = 'completed'
"""

_LAST_FINISHED = "SELECT extract(epoch FROM max(finished_at))::float FROM triggerkit.runs"

#: Whether every reader of the WAL has read it up to now.
_ALL_READ = "SELECT bool_and(sent_lsn >= %s::pg_lsn) FROM pg_stat_replication"


#: The same task, whose runs the stream makes itself.
DIRECT_TASKS = TASKS.replace('changes("public.items")', 'changes("public.items", via="direct")')


def run(scale: Scale, *, is_whole: bool = True) -> Report:
    """Measure the limit, Debezium's engine and the product, one after the other in each round, the
    same with `via="direct"`, and the product to a bare route; if not `is_whole`, the limit and the
    product alone."""
    count = scale.pick(50_000, 300_000, 1_000_000)
    rounds = scale.pick(1, 3)
    if not is_whole:
        return _report(count, _measured(TASKS, count, rounds, None))
    with ExitStack() as stack:
        note, debezium = "", None
        try:
            folder = stack.enter_context(work_folder())
            debezium = stack.enter_context(Debezium.running(folder / "debezium"))
        except NotInstalled as error:
            note = str(error)
        report = _report(count, _measured(TASKS, count, rounds, debezium))
        direct = _report(count, _measured(DIRECT_TASKS, count, rounds, debezium), 0.22, 1.5)
        parts = {"directly": direct}
        if debezium is not None:
            parts["to a bare route"] = foreign.measure(count, rounds, debezium)
    for name, part in parts.items():
        report.figures.extend(replace(f, what=f"{name}: {f.what}") for f in part.figures)
        report.raw[name] = part.raw
    report.raw["not_measured"] = note
    return report


def _measured(
    tasks: str, count: int, rounds: int, debezium: Debezium | None
) -> list[dict[str, float]]:
    """Return each contestant's changes a second in each round."""
    with work_folder() as folder:
        write_project(folder, tasks, SCHEMA)
        with dev(folder):
            dsn = dev_database(folder)
            bare_dsn = _prepare_bare(dsn)
            with connect(dsn) as connection:
                _whole_way(connection, WARM_UP)
                measured = []
                for _ in range(rounds):
                    rates = {"limit": _bare(folder, bare_dsn, connection, count)}
                    if debezium is not None:
                        rates["debezium"] = debezium.changes_per_s(count)
                    rates["product"] = _whole_way(connection, count)
                    measured.append(rates)
    return measured


def _report(
    count: int,
    measured: list[dict[str, float]],
    by_limit: float = 0.16,
    by_debezium: float = 1.1,
) -> Report:
    def rate(of: str) -> float:
        return middle([rates[of] for rates in measured])

    def ratio(to: str) -> float:
        return middle([rates["product"] / rates[to] for rates in measured])

    figures = [
        Figure("committed → batch task's run completed", rate("product"), "changes/s"),
        Figure("limit: bare receive + decode + JSON", rate("limit"), "changes/s"),
        Figure("ratio to the limit", ratio("limit"), "x", Target("≥", by_limit)),
    ]
    if "debezium" in measured[0]:
        figures += [
            Figure("Debezium's engine, to a bare route", rate("debezium"), "changes/s"),
            Figure("ratio to Debezium's engine", ratio("debezium"), "x", Target("≥", by_debezium)),
        ]
    return Report(figures, {"changes": count, "batch_size": 500, "changes_per_s": measured})


def _whole_way(connection: Connection, count: int) -> float:
    """Insert `count` rows and wait for their runs; changes a second since the first commit."""
    connection.execute("CHECKPOINT")
    expected = one(connection, _COMPLETED) + count
    first_commit = insert(connection, count)
    wait_until(
        lambda: bool(one(connection, _COMPLETED) >= expected), ROUND_S, "all runs completed", 0.25
    )
    return float(count / (one(connection, _LAST_FINISHED) - first_commit))


def _prepare_bare(dsn: str) -> str:
    """A database on the same server whose WAL holds nothing but the rows of the limit."""
    with connect(dsn) as connection:
        connection.execute("CREATE DATABASE bare")
    bare_dsn = make_conninfo(dsn, dbname="bare")
    with connect(bare_dsn) as connection:
        connection.execute(SCHEMA)
        connection.execute("CREATE PUBLICATION bare FOR TABLE items")
    return bare_dsn


def _bare(folder: Path, dsn: str, product: Connection, count: int) -> float:
    """Insert `count` rows into a table nobody else reads, then read them; changes a second."""
    with connect(dsn) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('bare', 'pgoutput')")
        insert(connection, count)
        connection.execute("CHECKPOINT")
        end = one(connection, "SELECT pg_current_wal_flush_lsn()")
        wait_until(
            lambda: bool(one(product, _ALL_READ, end)), 60, "the product passed over it", 0.1
        )
        seconds = float(
            run_to_end(
                ROOT, ["bench.bare", dsn, "bare", "bare", str(count)], {"TMPDIR": str(folder)}
            )
        )
        wait_until(lambda: _drop_slot(connection), 10, "the slot is free", 0.05)
    return count / seconds


def _drop_slot(connection: Connection) -> bool:
    dropped = connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
        "WHERE slot_name = 'bare' AND NOT active"
    )
    return dropped.rowcount == 1
