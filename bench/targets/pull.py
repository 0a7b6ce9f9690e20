"""pull: messages a second that one caller receives and acknowledges over HTTP."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson

from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, one, servers, work_folder
from triggerkit.log.entry import PARTITIONS

#: Messages of one receive, and rows of one plain SELECT.
BATCH_SIZE = 1000

#: Most seconds until the log holds the rows.
CAPTURE_S = 120.0

KEY = "the management key of the benchmark"

_PROJECT = """\
tasks = []

[consumers.pulled]
tables = ["public.items"]
"""

_READ = f"""
SELECT position, record, changes, partition, schema_name, table_name, key, action, commit_lsn,
    commit_idx, commit_at, xid, unchanged, consumer_id, backfill_id, fault, annotations
FROM triggerkit.events
WHERE database_id = %s AND partition = %s AND position > %s ORDER BY position LIMIT {BATCH_SIZE}
"""

_LOGGED = "SELECT count(*) FROM triggerkit.events"


def run(scale: Scale) -> Report:
    """Read the log by SELECT and pull it, one after the other in each round."""
    count, rounds = scale.pick(20_000, 100_000), scale.pick(2, 5)
    with work_folder() as folder, servers(folder) as found:
        port = _free_port()
        settings = {
            **found,
            "TRIGGERKIT_WEBHOOK_SECRET": "the webhook secret of the benchmark",
            "TRIGGERKIT_SECRET_KEY": KEY,
            "TRIGGERKIT_PORT": str(port),
        }
        with connect(found["DATABASE_URL"]) as connection:
            _fill_log(folder, settings, connection, count)
            with Program(folder, ["triggerkit", "serve"], settings):
                _pulled(connection, port, count)
                selects, pulls = [], []
                for _ in range(rounds):
                    selects.append(_selected(connection, count))
                    pulls.append(_pulled(connection, port, count))
    return _report(count, selects, pulls)


def _report(count: int, selects: list[float], pulls: list[float]) -> Report:
    ratios = [pull / select for pull, select in zip(pulls, selects, strict=True)]
    figures = [
        Figure("received and acknowledged by one caller", middle(pulls), "messages/s"),
        Figure("the same rows by plain SELECT", middle(selects), "rows/s"),
        Figure("ratio to plain SELECT", middle(ratios), "x", Target("≥", 0.3)),
    ]
    raw = {
        "messages": count,
        "batch_size": BATCH_SIZE,
        "messages_per_s": pulls,
        "selected_rows_per_s": selects,
        "ratios": ratios,
    }
    return Report(figures, raw)


def _fill_log(folder: Path, settings: dict[str, str], connection: Connection, count: int) -> None:
    """Have `count` rows captured into the log of a consumer that is pulled."""
    (folder / "triggerkit.toml").write_text(_PROJECT)
    connection.execute(SCHEMA)
    run_to_end(folder, ["triggerkit", "upgrade"], settings)
    run_to_end(folder, ["triggerkit", "apply"], settings)
    with Program(folder, ["triggerkit", "stream"], settings):
        insert(connection, count)
        wait_until(
            lambda: bool(one(connection, _LOGGED) == count), CAPTURE_S, "all rows logged", 0.1
        )
    connection.execute("VACUUM ANALYZE triggerkit.events")
    connection.execute("CHECKPOINT")


def _selected(connection: Connection, count: int) -> float:
    """Read the log in batches, its JSON parsed as who pulls does; rows a second."""
    database_id = one(connection, "SELECT id FROM triggerkit.databases")
    seen, started = 0, time.perf_counter()
    for partition in range(PARTITIONS):
        position = 0
        while rows := connection.execute(
            _READ, [database_id, partition, position], binary=True
        ).fetchall():
            seen += len([(_parsed(row[1]), _parsed(row[2]), row) for row in rows])
            position = rows[-1][0]
    assert seen == count
    return count / (time.perf_counter() - started)


def _parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _pulled(connection: Connection, port: int, count: int) -> float:
    """Receive and acknowledge all from the beginning; messages a second."""
    connection.execute("UPDATE triggerkit.cursors SET position = 0")
    connection.execute("VACUUM triggerkit.cursors")
    http = HTTPConnection("127.0.0.1", port)
    seen, started = 0, time.perf_counter()
    while data := _post(http, "receive", {"batch_size": BATCH_SIZE})["data"]:
        seen += len(data)
        _post(http, "ack", {"ack_ids": [message["ack_id"] for message in data]})
    seconds = time.perf_counter() - started
    http.close()
    assert seen == count
    return count / seconds


def _post(http: HTTPConnection, operation: str, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    path = f"/api/v1/consumers/pulled/{operation}"
    http.request("POST", path, orjson.dumps(body), headers)
    response = http.getresponse()
    answer = orjson.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"{operation} answered {response.status}: {answer}")
    return answer


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
