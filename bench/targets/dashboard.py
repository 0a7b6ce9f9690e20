"""T8: milliseconds that each page of the dashboard takes with a million runs behind it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from bench.dashboard_seed import SCHEMA, SPAN_S, Sizes, seed, write_seeded_project
from bench.figures import Figure, Latencies, Report, Scale, Target
from bench.processes import Program, run_to_end
from bench.project import Connection, connect, one, servers, work_folder

KEY = "the management key of the benchmark"

#: Before a page is measured: what its process and the servers keep is there, as it is after a day.
WARM_UP = 3

#: Seconds that nothing happens while a page is open, after those until it is quiet.
IDLE_S = 15.0
SETTLING_S = 3.0

#: Statements in the server's log of those who read pages; what begins and ends transactions and
#: sets what holds in them is none, nor the empty one that asks whether a connection is still one.
_QUERY = re.compile(
    r"^\[triggerkit (?:dashboard|status|check|api|why)[^\]]*\] LOG:  "
    r"(?:statement|execute [^:]*): "
    r"(?!BEGIN|COMMIT|ROLLBACK|SET |SAVEPOINT|RELEASE|\n\[|\n?\Z)(.*)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One page: how long it took, what it asked of Postgres, and how large it was."""

    path: str
    ms: Latencies
    queries: int
    size: int

    def as_json(self) -> dict[str, Any]:
        """Return it without every sample."""
        return {
            "p50": round(self.ms.at(50), 1),
            "p95": round(self.ms.at(95), 1),
            "max": round(self.ms.at(100), 1),
            "queries": self.queries,
            "kB": round(self.size / 1000, 1),
        }


def run(scale: Scale) -> Report:
    """Fill a state, serve it, and load every page again and again."""
    sizes, times = Sizes.of(scale), scale.pick(20, 40)
    with work_folder() as folder, servers(folder / "state") as found:
        settings = {
            **found,
            "TRIGGERKIT_WEBHOOK_SECRET": "the webhook secret of the benchmark",
            "TRIGGERKIT_SECRET_KEY": KEY,
            "TRIGGERKIT_PORT": str(_free_port()),
            "TRIGGERKIT_LOG_MAX_BYTES": "1TB",
        }
        write_seeded_project(folder / "project", sizes)
        with connect(found["DATABASE_URL"]) as connection:
            connection.execute(SCHEMA)
            run_to_end(folder / "project", ["triggerkit", "apply"], settings)
            started = time.monotonic()
            seed(connection, found["DATABASE_URL"], sizes)
            seeded_s = time.monotonic() - started
            with (
                Program(folder / "project", ["triggerkit", "serve"], settings) as serve,
                _logged(connection, folder / "state") as log,
            ):
                reader = Reader(int(settings["TRIGGERKIT_PORT"]), log)
                pages = [reader.measure(path, times) for path in paths(connection, reader)]
                idle = _idle_share(reader, serve)
    return _report(sizes, pages, idle, seeded_s)


def paths(connection: Connection, reader: Reader) -> list[str]:
    """Return every page, lists also with each of their filters, and far from their beginning."""
    newest = one(connection, "SELECT id FROM triggerkit.runs WHERE status = 'completed' "
                 "AND source IS NOT NULL ORDER BY id DESC LIMIT 1")  # fmt: skip
    failed = one(connection, "SELECT id FROM triggerkit.runs WHERE status = 'failed' "
                 "ORDER BY id DESC LIMIT 1")  # fmt: skip
    middle = one(connection, "SELECT id FROM triggerkit.runs WHERE id < %s ORDER BY id DESC "
                 "OFFSET 1000 LIMIT 1", _id_at(connection, SPAN_S / 2))  # fmt: skip
    position = one(connection, "SELECT max(position) FROM triggerkit.events")
    consumer = one(connection, "SELECT name FROM triggerkit.consumers ORDER BY name LIMIT 1")
    endpoint = one(connection, "SELECT name FROM triggerkit.endpoints ORDER BY name LIMIT 1")
    database = one(connection, "SELECT name FROM triggerkit.databases")
    parked = one(connection, "SELECT c.name || '/' || p.position FROM triggerkit.parked p "
                 "JOIN triggerkit.consumers c ON c.id = p.consumer_id LIMIT 1")  # fmt: skip
    audit = one(connection, "SELECT max(id) / 2 FROM triggerkit.audit")
    filters = [
        *(f"status:{status}" for status in ("completed", "failed", "queued", "delayed")),
        "status:canceled task:task_003",
        "task:task_003", "task:task_099", "task:none",
        "table:things_3", "table:none", "table:things_3 key:17", "table:things_3 key:none",
        "tag:nightly", "tag:tag_40", "tag:none", "queue:queue_003", "queue:none",
        "consumer:task_003", "schedule:none", "batch:none", "none",
        "error:TimeoutError", "error:none", "status:failed error:TimeoutError",
        "since:1h", "since:24h task:task_003", "until:2020-01-01",
    ]  # fmt: skip
    trace = ["table:things_3", "table:none", "table:things_3 key:17", "table:things_3 key:none",
             "action:update", "action:truncate", "since:1h", "since:1h table:none"]  # fmt: skip
    return [
        "/", "/?window=24h",
        "/runs", f"/runs?cursor={middle}",
        *(f"/runs?{urlencode({'filter': text})}" for text in filters),
        f"/runs?{urlencode({'filter': 'status:failed', 'cursor': middle})}",
        f"/runs?{urlencode({'filter': 'table:things_3', 'cursor': middle})}",
        f"/runs/{newest}", f"/runs/{failed}",
        "/tasks", "/tasks?cursor=task_050", "/tasks/task_003", "/tasks/task_003?window=24h",
        "/queues", "/queues?cursor=queue_019",
        "/errors", *(f"/errors?{urlencode({'filter': text})}" for text in
                     ("task:task_003", "since:1h", "since:7d", "task:none")),
        "/schedules",
        "/trace", f"/trace?cursor={position // 2}",
        *(f"/trace?{urlencode({'filter': text})}" for text in trace),
        f"/trace/{position}",
        "/consumers", f"/consumers/{consumer}",
        "/messages", *(f"/messages?{urlencode({'filter': text})}" for text in
                       ("state:blocked", f"consumer:{consumer}", "state:superseded")),
        *reader.following("/messages"),
        f"/messages/{quote(parked)}",
        "/endpoints", f"/endpoints/{endpoint}",
        "/databases", f"/databases/{database}", "/connect",
        "/audit", f"/audit?cursor={audit}",
        "/why", f"/why?{urlencode({'q': 'public.things_3 17'})}",
        f"/why?{urlencode({'q': failed})}", f"/why?q={position}",
    ]  # fmt: skip


class Reader:
    """Somebody who is logged in and loads pages, over one connection as a browser does."""

    def __init__(self, port: int, log: Path) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._log = log
        form = {"content-type": "application/x-www-form-urlencoded"}
        origin = {"origin": f"http://127.0.0.1:{port}"}
        key = urlencode({"key": KEY})
        self._connection.request("POST", "/dashboard/login", key, {**form, **origin})
        response = self._connection.getresponse()
        response.read()
        self._cookie = str(response.getheader("set-cookie")).partition(";")[0]

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a page."""
        self._connection.request("GET", f"/dashboard{path}", headers={"cookie": self._cookie})
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def following(self, path: str) -> list[str]:
        """Return the page after the next of a list."""
        for _ in range(2):
            links = re.findall(r'href="/dashboard([^"]*cursor=[^"]*)"', self.get(path)[1])
            if not links:
                return []
            path = links[-1].replace("&amp;", "&")
        return [path]

    def measure(self, path: str, times: int) -> Measured:
        """Load a page `times` times.

        Raises:
            RuntimeError: it is not answered as a page.
        """
        for _ in range(WARM_UP):
            status, text = self.get(path)
            if status >= 500:
                raise RuntimeError(f"{path} answered {status}: {text}")
        logged = self._log.stat().st_size
        self.get(path)
        with self._log.open(errors="replace") as file:
            file.seek(logged)
            queries = len(_QUERY.findall(file.read()))
        samples = []
        for _ in range(times):
            started = time.perf_counter()
            self.get(path)
            samples.append((time.perf_counter() - started) * 1000)
        return Measured(path, Latencies(tuple(samples)), queries, len(text.encode()))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep a page open that is told of changes."""
        live = HTTPConnection("127.0.0.1", self._connection.port, timeout=60)
        live.request("GET", "/dashboard/live", headers={"cookie": self._cookie})
        live.getresponse().readline()
        try:
            yield
        finally:
            live.close()


@contextmanager
def _logged(connection: Connection, state: Path) -> Iterator[Path]:
    """Have the server log every statement by whose it is; yield its log."""
    changes = {"log_statement": "all", "log_line_prefix": "[%a] "}
    for name, to in changes.items():
        connection.execute(f"ALTER SYSTEM SET {name} = '{to}'".encode())
    connection.execute("SELECT pg_reload_conf()")
    try:
        yield state / "log" / "postgres.log"
    finally:
        for name in changes:
            connection.execute(f"ALTER SYSTEM RESET {name}".encode())
        connection.execute("SELECT pg_reload_conf()")


def _idle_share(reader: Reader, serve: Program) -> dict[str, float]:
    """Return the shares of a core that `serve` takes while nothing happens: with a page open, and
    without."""
    shares = {}
    with reader.listening():
        shares["with a page open"] = _share(serve)
    shares["without"] = _share(serve)
    return shares


def _share(serve: Program) -> float:
    time.sleep(SETTLING_S)
    used, started = serve.cpu_s(), time.monotonic()
    time.sleep(IDLE_S)
    return (serve.cpu_s() - used) / (time.monotonic() - started) * 100


def _report(sizes: Sizes, pages: list[Measured], idle: dict[str, float], seeded_s: float) -> Report:
    slowest = max(pages, key=lambda page: page.ms.at(95))
    most = max(pages, key=lambda page: page.queries)
    largest = max(pages, key=lambda page: page.size)
    figures = [
        Figure("slowest page: p95", slowest.ms.at(95), "ms", Target("≤", 150)),
        Figure("  median of all pages' p95", sorted(p.ms.at(95) for p in pages)[len(pages) // 2],
               "ms"),
        Figure("most queries of a page", most.queries, "", Target("≤", 8)),
        Figure("largest page", largest.size / 1000, "kB", Target("≤", 100)),
        Figure("a page open while nothing happens", idle["with a page open"], "% of a core",
               Target("≤", 1)),
    ]  # fmt: skip
    ordered = sorted(pages, key=lambda page: page.ms.at(95), reverse=True)
    raw = {
        "sizes": {name: getattr(sizes, name) for name in sizes.__slots__},
        "seeded_s": round(seeded_s, 1),
        "slowest": slowest.path,
        "most queries": most.path,
        "largest": largest.path,
        "idle_percent_of_a_core": idle,
        "pages": {page.path: page.as_json() for page in ordered},
    }
    return Report(figures, raw)


def _id_at(connection: Connection, ago_s: float) -> str:
    return str(one(connection, "SELECT id FROM triggerkit.runs WHERE created_at > now() - "
                   "interval '1 s' * %s ORDER BY id LIMIT 1", ago_s))  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
