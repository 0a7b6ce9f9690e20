"""T5: what capture costs the source database, by pgbench with and without it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from bench.figures import Figure, Report, Scale, Target, middle
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, one, servers, work_folder, write_project
from triggerkit.embedded.programs import postgres_folder
from triggerkit.replication.slot.replication_slot import slot_name_for

#: pgbench's own: 100,000 accounts each, and its clients.
SCALE_FACTOR = 10
CLIENTS = 4

#: Seconds the log may take to catch up after a round.
CATCH_UP_S = 120.0

#: Changes in the log; each of pgbench's transactions changes one account.
_LOGGED = "SELECT coalesce(sum(next_position - 1), 0) FROM triggerkit.databases"

TASKS = """\
from typing import Any

from triggerkit import Change, changes, task


@task(on=changes("public.pgbench_accounts"), batch_size=500)
def look_at(batch: list[Change[dict[str, Any]]]) -> int:
    return len(batch)
"""

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

#: What runs beside pgbench: nothing, capture into the log, or all of it with the task's runs.
SETUPS: dict[str, tuple[str, ...]] = {
    "without": (),
    "capture": ("stream",),
    "whole way": ("serve", "worker", "stream"),
}


@dataclass(slots=True)
class Measured:
    """The rounds of one setup. `cpu_s` is the stream's, `behind_s` the log's at the end."""

    tps: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    behind_s: list[float] = field(default_factory=list)


def run(scale: Scale) -> Report:
    """Run pgbench in each setup, in turns."""
    seconds, rounds = scale.pick(3, 10), scale.pick(1, 3)
    measured = {name: Measured() for name in SETUPS}
    with work_folder() as folder, servers(folder / "state") as settings:
        settings |= {"TRIGGERKIT_WEBHOOK_SECRET": SECRET, "TRIGGERKIT_PORT": "8399"}
        write_project(folder / "project", TASKS, "")
        bench = Source(folder / "project", settings, seconds)
        bench.initialise()
        for _ in range(rounds):
            for name, found in measured.items():
                bench.measure(name, found)
    return _report(measured, seconds)


def _report(measured: dict[str, Measured], seconds: int) -> Report:
    without = measured["without"].tps

    def ratio(name: str) -> float:
        pairs = zip(measured[name].tps, without, strict=True)
        return middle([with_it / without_it for with_it, without_it in pairs])

    figures = [
        Figure("pgbench without capture", middle(without), "tps"),
        Figure("pgbench with capture into the log", middle(measured["capture"].tps), "tps"),
        Figure("  with / without", ratio("capture"), "x", Target("≥", 0.9)),
        Figure("  processor time of stream", middle(measured["capture"].cpu_s) / seconds, "cores"),
        Figure("  log behind at the end", middle(measured["capture"].behind_s), "s"),
        Figure("pgbench with every process running", middle(measured["whole way"].tps), "tps"),
        Figure("  with / without", ratio("whole way"), "x"),
    ]
    raw: dict[str, Any] = {
        name: {"tps": m.tps, "stream_cpu_s": m.cpu_s, "behind_s": m.behind_s}
        for name, m in measured.items()
    }
    raw |= {"seconds": seconds, "scale_factor": SCALE_FACTOR, "clients": CLIENTS}
    return Report(figures, raw)


class Source:
    """A source database with pgbench's tables, and our commands beside it."""

    def __init__(self, folder: Path, settings: dict[str, str], seconds: int) -> None:
        self._folder = folder
        self._settings = settings
        self._seconds = seconds
        self._dsn = settings["DATABASE_URL"]

    def initialise(self) -> None:
        """Make pgbench's tables and our state."""
        self._pgbench("--initialize", "--quiet", f"--scale={SCALE_FACTOR}")
        run_to_end(self._folder, ["triggerkit", "apply"], self._settings)

    def measure(self, name: str, found: Measured) -> None:
        """One round of pgbench in the setup `name`."""
        with connect(self._dsn) as connection, ExitStack() as running:
            self._prepare(connection, name)
            programs = [
                running.enter_context(Program(self._folder, ["triggerkit", p], self._settings))
                for p in SETUPS[name]
            ]
            connection.execute("CHECKPOINT")
            logged_before = one(connection, _LOGGED)
            cpu_before = programs[-1].cpu_s() if programs else 0.0
            printed = self._pgbench(
                "--no-vacuum", f"--client={CLIENTS}", f"--time={self._seconds}", "--jobs=1"
            )
            found.tps.append(_found(r"^tps = ([\d.]+)", printed))
            if programs:
                transactions = int(_found(r"actually processed: (\d+)", printed))
                found.cpu_s.append(programs[-1].cpu_s() - cpu_before)
                found.behind_s.append(_catch_up(connection, logged_before + transactions))

    def _prepare(self, connection: Connection, name: str) -> None:
        """The slot is there only where it is used; the consumer only where it is delivered to."""
        slot = slot_name_for(connection.info.dbname)
        wait_until(_slot_dropper(connection, slot), 10, "the slot is free", 0.05)
        if SETUPS[name]:
            run_to_end(self._folder, ["triggerkit", "apply"], self._settings)
        if "serve" not in SETUPS[name]:
            connection.execute("DELETE FROM triggerkit.consumers")

    def _pgbench(self, *options: str) -> str:
        where = conninfo_to_dict(self._dsn)
        command = [
            str(postgres_folder(None) / "bin" / "pgbench"),
            *options,
            f"--host={where['host']}",
            f"--port={where['port']}",
            f"--username={where['user']}",
            str(where["dbname"]),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout


def _slot_dropper(connection: Connection, slot: str) -> Callable[[], bool]:
    def drop() -> bool:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = %s AND NOT active",
            [slot],
        )
        left = one(
            connection, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", slot
        )
        return bool(left == 0)

    return drop


def _catch_up(connection: Connection, logged: int) -> float:
    """Seconds until the log holds `logged` changes."""
    started = time.monotonic()
    wait_until(
        lambda: bool(one(connection, _LOGGED) >= logged), CATCH_UP_S, "the log caught up", 0.02
    )
    return time.monotonic() - started


def _found(pattern: str, printed: str) -> float:
    found = re.search(pattern, printed, re.MULTILINE)
    if found is None:
        raise ValueError(f"pgbench does not say {pattern}:\n{printed}")
    return float(found.group(1))
