"""The stream is killed again and again while it writes into Kafka, and the broker is restarted."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.acceptance.project import clean_environment
from tests.integration.events.written import Topics, Written, declare_events, with_kafka
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from triggerkit.consumers.declare.topics import BATCH_SIZE
from triggerkit.failpoints import VARIABLE
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings

TABLES = ("one", "two", "three")

#: Statements of one transaction.
TOGETHER = 20

#: Seconds until all is written once the last change is committed.
PATIENCE_S = 300.0


class Happened(NamedTuple):
    """What an event is to say: which of a row, and the version that the row had."""

    event: str
    version: int


class Writer:
    """Inserts, updates, moves and deletes rows; knows which events each key is to have."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._connection = psycopg.connect(settings.source_dsn)
        self._rng = random.Random(seed)
        self._rows: dict[str, dict[int, int]] = {table: {} for table in TABLES}
        self._version = 0
        self.expected: dict[tuple[str, str], list[Happened]] = defaultdict(list)
        self.count = 0

    def write(self) -> None:
        """Commit a transaction of changes to all tables."""
        with self._connection.transaction():
            for _ in range(TOGETHER):
                self._change(self._rng.choice(TABLES))

    def close(self) -> None:
        self._connection.close()

    def _change(self, table: str) -> None:
        rows, rng = self._rows[table], self._rng
        self._version += 1
        version = self._version
        kind = rng.random()
        if not rows or kind < 0.45:
            key = rng.randrange(100_000)
            if key in rows:
                self._expect(table, key, "updated", version)
            else:
                self._expect(table, key, "inserted", version)
            self._execute(
                f"INSERT INTO {table} VALUES (%s, %s) "
                "ON CONFLICT (id) DO UPDATE SET version = excluded.version",
                key,
                version,
            )
            rows[key] = version
            return
        key = rng.choice(list(rows)) if len(rows) < 50 else next(iter(rows))
        if kind < 0.75:
            self._execute(f"UPDATE {table} SET version = %s WHERE id = %s", version, key)
            self._expect(table, key, "updated", version)
            rows[key] = version
            # The first of the dictionary is another one next.
            rows[key] = rows.pop(key)
        elif kind < 0.85:
            moved = rng.randrange(100_000, 10_000_000)
            if moved in rows:
                return
            self._execute(
                f"UPDATE {table} SET id = %s, version = %s WHERE id = %s", moved, version, key
            )
            self._expect(table, key, "deleted", rows.pop(key))
            self._expect(table, moved, "inserted", version)
            rows[moved] = version
        else:
            self._execute(f"DELETE FROM {table} WHERE id = %s", key)
            self._expect(table, key, "deleted", rows.pop(key))

    def _execute(self, statement: str, *values: int) -> None:
        self._connection.execute(statement.encode(), values)

    def _expect(self, table: str, key: int, event: str, version: int) -> None:
        self.expected[table, str(key)].append(Happened(event, version))
        self.count += 1


class KilledStream:
    """A real `triggerkit stream`, killed and started again."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._environment = {**clean_environment(), **settings.environment()}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, fail_point: str = "") -> None:
        """Start it; with a fail point it kills itself there, once."""
        with (self._folder / "stream.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "triggerkit", "stream",
                cwd=self._folder, env={**self._environment, VARIABLE: fail_point},
                stdout=log, stderr=log,
            )  # fmt: skip

    async def ended(self) -> None:
        """Wait until its fail point killed it."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._process.wait()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def run_with_faults(
    settings: Settings, server: KafkaServer, folder: Path, changes: int, kills: int, seed: int
) -> tuple[Writer, Topics]:
    """Write so many changes while the stream is killed and the broker restarted."""
    print(f"seed {seed}")
    topics, writer, rng = Topics(server, settings), Writer(settings, seed), random.Random(seed)
    # Half of the kills are between the broker's answer and the cursor.
    faults = ["kill" if number % 2 else "fail point" for number in range(kills)]
    faults.insert(rng.randrange(1, kills), "restart")
    at = [changes * (number + 1) // (len(faults) + 1) for number in range(len(faults))]

    async def scenario() -> None:
        stream = KilledStream(folder, settings)
        await stream.start()
        for count, fault in zip(at, faults, strict=True):
            await asyncio.to_thread(_write_until, writer, count)
            if fault == "restart":
                await asyncio.to_thread(_restart, server)
                continue
            await stream.kill()
            if fault == "fail point":
                await stream.start(f"produced-before-cursor={folder / f'fired-{count}'}")
                await asyncio.to_thread(_write_until, writer, count + TOGETHER)
                await stream.ended()
            await stream.start()
        await asyncio.to_thread(_write_until, writer, changes)
        await asyncio.to_thread(until_written, settings)
        await stream.kill()

    try:
        asyncio.run(scenario())
    finally:
        writer.close()
    return writer, topics


def _write_until(writer: Writer, count: int) -> None:
    while writer.count < count:
        writer.write()


def _restart(server: KafkaServer) -> None:
    with server.away(force=True):
        pass


def until_written(settings: Settings) -> None:
    """Wait until all cursors are past the last change."""
    left = (
        "SELECT count(*) FROM triggerkit.cursors k JOIN triggerkit.events e "
        "ON e.partition = k.partition AND e.position > k.position"
    )
    captured = (
        "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots "
        "WHERE database = current_database()"
    )
    deadline = time.monotonic() + PATIENCE_S
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        end = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert end is not None
        while (
            connection.execute(captured, end).fetchone() != (True,)
            or connection.execute(left).fetchone() != (0,)
        ):  # fmt: skip
            assert time.monotonic() < deadline, "not all is written"
            time.sleep(0.2)


def check(
    expected: Mapping[tuple[str, str], Sequence[Happened]], found: Mapping[str, Sequence[Written]]
) -> int:
    """See that each key has its events in order, none missing; return how many came twice."""
    seen: dict[tuple[str, str], list[Happened]] = defaultdict(list)
    known: set[tuple[str, str, str, str]] = set()
    duplicates = 0
    for table, messages in found.items():
        for message in messages:
            assert message.value is not None
            assert message.key is not None
            identity = (table, message.key, message.headers["lsn"], message.headers["idx"])
            if identity in known:
                duplicates += 1
                continue
            known.add(identity)
            version = message.value["data"]["version"]
            seen[table, message.key].append(Happened(message.value["event"], version))
    missing = {key for key in expected if seen.get(key) != expected[key]}
    told = {key: (expected[key], seen.get(key)) for key in sorted(missing)[:3]}
    assert not missing, f"{len(missing)} keys differ, such as {told}"
    assert seen.keys() == expected.keys()
    return duplicates


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "changes", [6_000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["some", "many"]
)
def test_nothing_is_missing_in_kafka_and_each_key_is_in_order(
    settings: Settings, kafka_server: KafkaServer, tmp_path: Path, changes: int
) -> None:
    kafka = with_kafka(settings, kafka_server.settings())
    asyncio.run(
        execute(
            kafka,
            *(f"CREATE TABLE {table} (id bigint PRIMARY KEY, version bigint)" for table in TABLES),
            *(f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in TABLES),
        )
    )
    asyncio.run(declare_events(kafka, tables=list(TABLES), partitions=4))
    kills, seed = 5, random.SystemRandom().randrange(10**6)
    writer, topics = run_with_faults(kafka, kafka_server, tmp_path, changes, kills, seed)
    assert writer.count >= changes
    duplicates = check(writer.expected, {table: topics.read(table) for table in TABLES})
    print(f"{writer.count} changes, {duplicates} twice")
    # Only what was in flight when a process died: a batch of each partition.
    assert duplicates <= 2 * kills * PARTITIONS * BATCH_SIZE
