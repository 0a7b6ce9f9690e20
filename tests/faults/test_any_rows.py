"""Whatever Postgres accepts, through every option of consumers: nobody stops for another's row."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import clean_environment
from tests.faults.rig import any_rows
from tests.faults.rig.any_rows import Change, Tenants
from tests.faults.rig.recorder import MoodyReceiver, Taken
from tests.servers import Servers
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate

#: The memory that docs/deploy.md names for a stream.
MOST_BYTES = 1024 * 1024 * 1024

FUNCTIONS = """
def keep(message):
    return True

def shape(message):
    return message.body if hasattr(message, "body") else message
"""

ALL = any_rows.table_names()
FULL = ALL[: any_rows.TABLES // 2]

#: Consumers by their paths: those that get everything, and those that leave some of it out.
WHOLE: dict[str, ConsumerDefinition] = {
    "/good/changes": changes(*ALL, batch_size=50),
    "/good/rows": rows(*ALL, batch_size=50),
    "/good/single": changes(*ALL, batch_size=1),
    "/flaky/rows": rows(*ALL, batch_size=20, timeout_s=5),
    "/busy/grouped": changes(*FULL, group_by=["kind"], batch_size=20),
    "/refusing/skipped": changes(*ALL, batch_size=10, max_attempts=2, on_exhausted="skip"),
    "/rude/timed": changes(*ALL, batch_size=50, batch_timeout_s=0.2),
    "/slow/few": rows(*ALL, batch_size=50, concurrency=2),
    "/picky/items": changes(*ALL, batch_size=20, max_attempts=3, on_exhausted="skip"),
}

PART: dict[str, ConsumerDefinition] = {
    "/good/changed": changes(*FULL, when_changed=["kind", "version"], batch_size=20),
    "/garbled/filtered": rows(*FULL, filters=[("kind", "==", "3")], batch_size=20),
    "/good/inserts": changes(*ALL, actions=["insert"], batch_size=20),
}


class StreamProcess:
    """A real `triggerkit stream`, which is not started again."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        (folder / "tasks.py").write_text(FUNCTIONS)
        self._log = folder / "stream.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triggerkit", "stream"],
                cwd=folder,
                env={**clean_environment(), **environment},
                stdout=log,
                stderr=log,
            )

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
        shown = "\n".join(f"{path}: {changes}"[:600] for path, changes in lost.items())
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
    with psycopg.connect(url, autocommit=True) as connection:
        any_rows.create(connection)
        asyncio.run(declare(environment, {**WHOLE, **PART}))
        stream = StreamProcess(folder / "project", environment)
        try:
            with Tenants(url, random.randrange(2**32)):
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    time.sleep(0.5)
                    stream.require_alive()
            truth = any_rows.committed(connection)
            print(f"{len(truth)} changes")
            assert len(truth) > seconds * 5
            until = time.monotonic() + 60 + seconds / 5
            while lost := missing(connection, receiver, truth):
                assert time.monotonic() < until, stream.explain(lost)
                time.sleep(0.5)
            stream.require_alive()
            peak_bytes = stream.peak_bytes
            print(f"memory {peak_bytes / 2**20:.0f} MiB")
            assert peak_bytes < MOST_BYTES
        finally:
            stream.stop()
    for path in (*WHOLE, *PART):
        disordered = list(disorder(receiver.taken[path], path))
        assert not disordered, f"{path}: {disordered[:5]}"
        invented = list(phantoms(receiver.taken[path], truth))
        assert not invented, f"{path}: {invented[:5]}"


def environment_of(url: str, redis_url: str, receiver: MoodyReceiver) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the fault tests",
        "TRIGGERKIT_PUBLIC_URL": receiver.url,
    }


async def declare(environment: dict[str, str], consumers: dict[str, ConsumerDefinition]) -> None:
    settings = Settings.parse(environment)
    declared = [
        Declared(path.strip("/").replace("/", "_"), definition, path)
        for path, definition in consumers.items()
    ]
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        await migrate(state)
        await apply(source, state, declared, settings.public_url)


def missing(
    connection: psycopg.Connection, receiver: MoodyReceiver, truth: list[Change]
) -> dict[str, list[Change]]:
    """What did not arrive yet at those who get everything, and was not parked."""
    found = {}
    for path, definition in WHOLE.items():
        followed = {name.partition(".")[2] for name in map(str, definition.tables)}
        taken = list(receiver.taken[path])
        versions = {(t.name, t.version) for t in taken if t.action in ("insert", "update")}
        # Of a delete the version may not be known: they are counted.
        deletes = Counter((t.name, t.key) for t in {t.id: t for t in taken}.values()
                          if t.action == "delete")  # fmt: skip
        wanted = Counter((c.name, c.key) for c in truth if c.op == "delete" and c.name in followed)
        parked = parked_keys(connection, path)
        lost = [
            c
            for c in truth
            if c.name in followed
            and c.op != "delete"
            and (c.name, c.version) not in versions
            and c.key not in parked
        ]
        lost += [
            Change(*key, "delete", 0)
            for key, count in wanted.items()
            if deletes[key] < count and key[1] not in parked
        ]
        if lost:
            found[path] = lost[:3]
    return found


def parked_keys(connection: psycopg.Connection, path: str) -> set[str]:
    """The keys of rows that somebody has to look at."""
    rows_of = connection.execute(
        "SELECT p.key FROM triggerkit.parked p JOIN triggerkit.consumers c ON c.id = p.consumer_id "
        "WHERE c.name = %s AND p.state IN ('blocked', 'dead')",
        [path.strip("/").replace("/", "_")],
    )
    return {key for (text,) in rows_of for key in _keys_of(text)}


def _keys_of(text: str) -> list[str]:
    found = json.loads(text)
    return [str(found[-1])] if isinstance(found, list) else [str(found)]


def disorder(taken: list[Taken], path: str) -> Iterator[str]:
    """Changes of a row that were taken first after later ones."""
    if path.startswith(("/refusing", "/picky")):
        return  # what was skipped may be taken later
    last: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    seen: set[str] = set()
    for message in taken:
        if message.id in seen or message.action == "read":
            continue
        seen.add(message.id)
        row = (message.name, message.key)
        if message.place < last[row]:
            yield f"{message} after {last[row]}"
        last[row] = message.place


def phantoms(taken: list[Taken], truth: list[Change]) -> Iterator[str]:
    """What was taken and never committed."""
    committed = {(c.name, c.version) for c in truth}
    for message in taken:
        if message.version is not None and (message.name, message.version) not in committed:
            yield str(message)


@pytest.mark.timeout(240)
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
        stream = StreamProcess(tmp_path / "project", environment)
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
@pytest.mark.timeout(1200)
def test_any_rows_for_ten_minutes(
    tmp_path: Path, database_url: str, servers: Servers, receiver: MoodyReceiver
) -> None:
    run(tmp_path, database_url, servers.redis.url, receiver, seconds=600)
