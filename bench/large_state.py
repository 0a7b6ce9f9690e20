"""`python -m bench.large_state FOLDER [--runs N] [--entries N] [--parked N]`: fill a large state.

It is in a Postgres of its own below FOLDER, which this leaves there: another time it is started
again as it is. Runs until it is interrupted; FOLDER/settings.json says how to reach the servers,
and FOLDER/project is the project whose state it is.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from bench.dashboard_seed import SCHEMA, Sizes, seed, write_seeded_project
from bench.processes import run_to_end
from bench.project import Connection, connect, servers

#: Of the Postgres while it is filled: nothing of it need outlive a crash.
_HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "'16GB'",
    "maintenance_work_mem": "'1GB'",
    "work_mem": "'256MB'",
    "autovacuum": "off",
}

#: What was written is no change of anybody's: a stream need not read its WAL first.
_PASS = """
WITH passed AS (
    SELECT d.id, (pg_replication_slot_advance(d.slot_name, pg_current_wal_lsn())).end_lsn AS lsn
    FROM triggerkit.databases d)
UPDATE triggerkit.databases d SET confirmed_lsn = (p.lsn - '0/0')::bigint
FROM passed p WHERE d.id = p.id
"""

_SECRET = "a-secret-of-the-benchmarks-only"


def fill(folder: Path, found: dict[str, str], sizes: Sizes) -> dict[str, str]:
    """Fill the state, if it is not there, and return the settings of its project."""
    settings = {
        **found,
        "TRIGGERKIT_WEBHOOK_SECRET": _SECRET,
        "TRIGGERKIT_LOG_MAX_BYTES": "1TB",
    }
    write_seeded_project(folder / "project", sizes)
    with connect(found["DATABASE_URL"]) as connection:
        if connection.execute("SELECT to_regclass('public.things_0')").fetchone() == (None,):
            connection.execute(SCHEMA)
            run_to_end(folder / "project", ["triggerkit", "apply"], settings)
            _hurry(connection, is_on=True)
            started = time.monotonic()
            seed(connection, found["DATABASE_URL"], sizes)
            connection.execute(_PASS)
            print(f"filled in {time.monotonic() - started:.0f} s", flush=True)
            _hurry(connection, is_on=False)
    return settings


def _hurry(connection: Connection, *, is_on: bool) -> None:
    for name, value in _HASTY.items():
        to = f"SET {name} = {value}" if is_on else f"RESET {name}"
        connection.execute(f"ALTER SYSTEM {to}".encode())
    connection.execute("SELECT pg_reload_conf(), pg_sleep(1)")
    # This session's own were read before.
    connection.execute("SET work_mem = '256MB'" if is_on else "RESET work_mem")


def main(arguments: list[str]) -> int:
    """Fill, tell where, and keep the servers until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_state")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--entries", type=int, default=20_000_000)
    parser.add_argument("--parked", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    sizes = Sizes(given.runs, given.entries, given.parked, queues=200, tasks=500)
    given.folder.mkdir(parents=True, exist_ok=True)
    with servers(given.folder / "state") as found:
        settings = fill(given.folder, found, sizes)
        (given.folder / "settings.json").write_text(json.dumps(settings))
        print("ready", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
