"""Whatever Postgres accepts, through every option of consumers: nobody stops for another's row."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import clean_environment
from tests.faults.rig import any_rows
from tests.faults.rig.any_rows import Change, Tenants
from tests.faults.rig.every_option import (
    CONSUMERS,
    FUNCTIONS,
    PULLED,
    keeps_order,
    name_of,
    wants,
)
from tests.faults.rig.meddler import Meddler
from tests.faults.rig.pullers import Pullers
from tests.faults.rig.recorder import MoodyReceiver, Taken
from tests.servers import Servers
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, rows
from triggerkit.project import call_own
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate

#: The memory that docs/deploy.md names for a stream.
MOST_BYTES = 1024 * 1024 * 1024

#: Seconds without anything new arriving, after which what is missing does not come any more: more
#: than a retry's back-off, or a function that hangs, takes.
STUCK_S = 90.0

SECRET_KEY = "a secret key for the fault tests"


class Running:
    """A real command of the project, which is not started again."""

    def __init__(
        self, folder: Path, environment: dict[str, str], *command: str, fds: Sequence[int] = ()
    ) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "tasks.py").write_text(FUNCTIONS)
        self._log = folder / f"{command[0]}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triggerkit", *command],
                cwd=folder,
                env={**clean_environment(), **environment},
                pass_fds=fds,
                stdout=log,
                stderr=log,
            )

    @property
    def name(self) -> str:
        """The command."""
        return self._log.stem

    @property
    def peak_bytes(self) -> int:
        """The kernel's high-water mark of its memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def require_alive(self) -> None:
        """Fail if it ended, or lost its way and began anew."""
        said = self._log.read_text()
        assert self._process.poll() is None, said[-3000:]
        assert "trying again" not in said, said[-3000:]

    def explain(self, lost: dict[str, list[Change]]) -> str:
        """What did not arrive, and the end of the log."""
        shown = "\n".join(
            f"{path}: {len(changes)} {changes[:3]}"[:600] for path, changes in lost.items()
        )
        return f"{shown}\n{self._log.read_text()[-3000:]}"

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture
def receiver() -> Iterator[MoodyReceiver]:
    with MoodyReceiver() as receiver:
        yield receiver


def run(folder: Path, url: str, redis_url: str, receiver: MoodyReceiver, seconds: float) -> None:
    """Write for so long, then judge every consumer."""
    environment = environment_of(url, redis_url, receiver)
    seed = random.randrange(2**32)
    with (
        psycopg.connect(url, autocommit=True) as connection,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        any_rows.create(connection)
        any_rows.fill(url, seed)
        before = any_rows.committed(connection)
        asyncio.run(declare(environment, CONSUMERS))
        fd = listener.fileno()
        stream = Running(folder / "project", environment, "stream")
        serve = Running(folder / "project", environment, "serve", "--fd", str(fd), fds=[fd])
        pullers = Pullers(listener.getsockname()[1], SECRET_KEY, [*PULLED], receiver)
        meddler = Meddler(Settings.parse(environment), seed)
        try:
            with pullers:
                with Tenants(url, seed), meddler:
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        time.sleep(0.5)
                        stream.require_alive()
                        serve.require_alive()
                truth = any_rows.committed(connection)[len(before) :]
                print(f"{len(before)} changes before, {len(truth)} followed; {meddler.done}")
                assert len(truth) > seconds * 5
                wait_for_all(
                    lambda: missing(connection, receiver, before, truth),
                    lambda lost: f"{stream.explain(lost)}\n{pullers.problems[:5]}",
                )
            for process in (stream, serve):
                process.require_alive()
                print(f"memory of {process.name} {process.peak_bytes / 2**20:.0f} MiB")
                assert process.peak_bytes < MOST_BYTES
            stopped = "SELECT name, state FROM triggerkit.consumers WHERE state <> 'active'"
            assert connection.execute(stopped).fetchall() == []
            failed = "SELECT table_name, error FROM triggerkit.backfills WHERE state = 'failed'"
            assert connection.execute(failed).fetchall() == []
        finally:
            serve.stop()
            stream.stop()
    assert pullers.problems == []
    for place in CONSUMERS:
        taken = receiver.taken[place]
        print(f"{place} took {len(taken)}")
        disordered = list(disorder(taken)) if keeps_order(place) else []
        assert not disordered, f"{place}: {disordered[:5]}"
        invented = list(phantoms(taken, place, before + truth))
        assert not invented, f"{place}: {invented[:5]}"


def wait_for_all(
    look: Callable[[], dict[str, list[Change]]], explain: Callable[[dict[str, list[Change]]], str]
) -> None:
    """Wait for as long as less is missing from time to time."""
    began = moved = time.monotonic()
    fewest = None
    while lost := look():
        count = sum(map(len, lost.values()))
        if fewest is None or count < fewest:
            fewest, moved = count, time.monotonic()
        assert time.monotonic() < moved + STUCK_S, explain(lost)
        time.sleep(1)
    print(f"all had it {time.monotonic() - began:.0f} s later")


def environment_of(url: str, redis_url: str, receiver: MoodyReceiver) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the fault tests",
        "TRIGGERKIT_SECRET_KEY": SECRET_KEY,
        "TRIGGERKIT_PUBLIC_URL": receiver.url,
    }


async def declare(environment: dict[str, str], consumers: dict[str, ConsumerDefinition]) -> None:
    call_own(["tasks"])
    settings = Settings.parse(environment)
    declared = [
        Declared(name_of(place), definition, place if place.startswith("/") else None)
        for place, definition in consumers.items()
    ]
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        await migrate(state)
        await apply(source, state, declared, settings.public_url)


def missing(
    connection: psycopg.Connection,
    receiver: MoodyReceiver,
    before: list[Change],
    truth: list[Change],
) -> dict[str, list[Change]]:
    """What did not arrive yet at a consumer that wants it, and was not parked."""
    last = {(change.name, change.key): change for change in before}
    there = [change for change in last.values() if change.op != "delete"]
    found = {}
    for place, definition in CONSUMERS.items():
        taken = list(receiver.taken[place])
        parked = Parked(connection, name_of(place))
        wanted = [change for change in truth if wants(place, change)]
        lost = list(_not_taken(taken, parked, wanted))
        if definition.start == "beginning":
            rows = {(message.name, message.key) for message in taken}
            lost += [
                change
                for change in there
                if wants(place, change)
                and (change.name, change.key) not in rows
                and not parked.has(change)
            ]
        if lost:
            found[place] = lost
    return found


def _not_taken(taken: list[Taken], parked: Parked, wanted: list[Change]) -> Iterator[Change]:
    versions = {(t.name, t.version) for t in taken if t.action in ("insert", "update")}
    # Of a delete the version may not be known: they are counted.
    deletes = Counter(
        (name, key)
        for _, name, key in {(t.place, t.name, t.key) for t in taken if t.action == "delete"}
    )
    for change in wanted:
        is_there = change.op == "delete" or (change.name, change.version) in versions
        if not is_there and not parked.has(change):
            yield change
    of_row = Counter((c.name, c.key) for c in wanted if c.op == "delete")
    for (name, key), count in of_row.items():
        lacking = count - deletes[name, key] - parked.deletes[name, key]
        if lacking > 0 and (name, key) not in parked.blocked:
            yield Change(name, key, "delete", 0)


class Parked:
    """What of a consumer somebody has to look at."""

    def __init__(self, connection: psycopg.Connection, name: str) -> None:
        found = connection.execute(_PARKED, [name]).fetchall()
        #: The rows of which nothing passes any more.
        self.blocked = {(t, _row(key)) for state, t, key, _, _ in found if state == "blocked"}
        self._versions = {(t, version) for _, t, _, action, version in found if action != "delete"}
        self.deletes = Counter(
            (t, _row(key)) for _, t, key, action, _ in found if action == "delete"
        )

    def has(self, change: Change) -> bool:
        """Whether it is parked, or waits behind what is."""
        row, version = (change.name, change.key), (change.name, str(change.version))
        return row in self.blocked or version in self._versions


#: Out of the body's text: some of what Postgres stores, it does not read again.
_PARKED = """
SELECT p.state, p.table_name, p.row_key, substring(p.body FROM '"action":"([a-z]+)"'),
    substring(p.body FROM '"version":([0-9]+)')
FROM triggerkit.parked p JOIN triggerkit.consumers c ON c.id = p.consumer_id
WHERE c.name = %s AND p.state IN ('blocked', 'dead')
"""


def _row(key: str) -> str:
    return "/".join(json.loads(key))


def disorder(taken: list[Taken]) -> Iterator[str]:
    """Changes of a row that were taken first after later ones; a replay repeats some."""
    last: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    seen: set[tuple[str, tuple[int, int]]] = set()
    for message in taken:
        change = (message.name, message.place)
        if change in seen or message.action == "read":
            continue
        seen.add(change)
        row = (message.name, message.key)
        if message.place < last[row]:
            yield f"{message} after {last[row]}"
        last[row] = message.place


def phantoms(taken: list[Taken], place: str, truth: list[Change]) -> Iterator[str]:
    """What was taken and never committed, or is not what the consumer wants."""
    # A delete has the version of the row that it ends.
    committed = {(c.name, c.version): c for c in truth if c.op != "delete"}
    for message in taken:
        if message.version is None:
            continue
        change = committed.get((message.name, message.version))
        wanted = change is not None and (message.action == "delete" or wants(place, change))
        if not wanted and not (change is not None and message.action == "read"):
            yield str(message)


@pytest.mark.timeout(480)
def test_any_rows_through_every_option(
    tmp_path: Path, database_url: str, servers: Servers, receiver: MoodyReceiver
) -> None:
    run(tmp_path, database_url, servers.redis.url, receiver, seconds=20)


@pytest.mark.timeout(180)
def test_large_rows_behind_endpoints_that_are_down_stay_within_the_memory(
    tmp_path: Path, database_url: str, servers: Servers, receiver: MoodyReceiver
) -> None:
    environment = environment_of(database_url, servers.redis.url, receiver)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE large (id int PRIMARY KEY, t text)")
        connection.execute(
            "INSERT INTO large SELECT i, repeat('x', 3000000) FROM generate_series(1, 200) i"
        )
        consumers = {f"/down/{n}": rows("large", batch_size=100) for n in range(1)}
        asyncio.run(declare(environment, consumers))
        stream = Running(tmp_path / "project", environment, "stream")
        try:
            until = time.monotonic() + 120
            unread = "SELECT FROM triggerkit.backfills WHERE state <> 'completed'"
            while connection.execute(unread).rowcount:
                assert time.monotonic() < until, stream.explain({})
                time.sleep(0.2)
            peak_bytes = stream.peak_bytes
            print(f"memory {peak_bytes / 2**20:.0f} MiB")
            assert peak_bytes < MOST_BYTES
        finally:
            stream.stop()


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_any_rows_for_ten_minutes(
    tmp_path: Path, database_url: str, servers: Servers, receiver: MoodyReceiver
) -> None:
    run(tmp_path, database_url, servers.redis.url, receiver, seconds=600)
