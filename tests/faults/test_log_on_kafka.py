"""A log on Kafka whose writer and deliverers are killed and paused, and whose broker restarts."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import clean_environment
from tests.faults.rig.log_on_kafka import LogProcess
from tests.integration.pipeline import declare, execute
from tests.kafka import KafkaServer
from tests.offered import environment_on_kafka
from tests.receiver import Received, Receiver
from triggerkit import changes
from triggerkit.settings import Settings

ROWS = 60

#: Updates of one transaction, and messages of one push.
TOGETHER = 15

#: Seconds until all has come once the last fault is over.
PATIENCE_S = 180.0

TABLE = (
    "CREATE TABLE items (id int PRIMARY KEY, version int NOT NULL)",
    "ALTER TABLE items REPLICA IDENTITY FULL",
    f"INSERT INTO items SELECT i, 0 FROM generate_series(1, {ROWS}) i",
)


class Writer:
    """Raises the versions of rows one by one until it is canceled."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._dsn = settings.source_dsn
        self._rng = random.Random(seed)
        self.versions = dict.fromkeys(range(1, ROWS + 1), 0)

    @property
    def count(self) -> int:
        """How many changes were committed."""
        return sum(self.versions.values())

    async def run(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            while True:
                # In one order, so that no two wait for each other.
                for row in sorted(self._rng.sample(range(1, ROWS + 1), TOGETHER)):
                    await connection.execute(
                        "UPDATE items SET version = version + 1 WHERE id = %s", [row]
                    )
                    self.versions[row] += 1
                await connection.commit()
                await asyncio.sleep(0.05)

    async def until(self, more: int) -> None:
        """Return once so many more are committed."""
        wanted = self.count + more
        while self.count < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def found_in(requests: list[Received]) -> tuple[dict[int, list[int]], int]:
    """The versions of each row in the order in which they came first, and how many came again."""
    known: set[str] = set()
    found: dict[int, list[int]] = defaultdict(list)
    again = 0
    for message in (message for request in requests for message in request.messages):
        key = message["metadata"]["idempotency_key"]
        if key in known:
            again += 1
            continue
        known.add(key)
        found[message["record"]["id"]].append(message["record"]["version"])
    return found, again


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_each_row_is_in_order(
    settings: Settings, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    base = Settings.parse({**settings.environment(), **kafka_server.settings()})
    writer = Writer(settings, seed)

    async def scenario() -> int:
        async with Receiver.start() as receiver:
            pushed_to = base.model_copy(update={"triggerkit_public_url": receiver.url})
            await execute(pushed_to, *TABLE)
            on_kafka = pushed_to.model_copy(update={"triggerkit_log": "kafka"})
            await declare(on_kafka, receiver, changes("items", batch_size=TOGETHER))
            environment = {**clean_environment(), **environment_on_kafka(pushed_to)}
            stream, one, other = (
                LogProcess(kind, tmp_path, environment, name)
                for kind, name in (("stream", "stream"), ("deliver", "one"), ("deliver", "other"))
            )
            writing = asyncio.create_task(writer.run())
            try:
                for process in (stream, one, other):
                    await process.start()
                await receiver.until(lambda: len(receiver.messages) > 200, PATIENCE_S)
                # A process that delivers dies, and its partitions are of the other.
                await one.kill()
                await writer.until(200)
                await one.start()
                # The broker dies.
                await asyncio.to_thread(kafka_server.stop, force=True)
                await writer.until(100)
                await asyncio.to_thread(kafka_server.start)
                # The writer dies: between the brokers' answer and the state, too.
                await stream.start_again("log-written", tmp_path / "fired")
                await writer.until(200)
                # One is away for longer than its session, and does not know.
                await other.pause()
                await writer.until(600)
                await asyncio.sleep(12)
                await other.resume()
                await writer.until(200)
            finally:
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing
            with psycopg.connect(settings.source_dsn) as connection:
                rows = connection.execute("SELECT id, version FROM items").fetchall()
            wanted = {row: [*range(1, version + 1)] for row, version in rows}
            try:
                await receiver.until(
                    lambda: (
                        sum(map(len, found_in(receiver.requests)[0].values()))
                        >= sum(map(len, wanted.values()))
                    ),
                    PATIENCE_S,
                )
            finally:
                for process in (stream, one, other):
                    await process.kill()
            found, again = found_in(receiver.requests)
            assert found == wanted
            return again

    again = asyncio.run(scenario())
    print(f"{writer.count} changes, {again} came again")
    # What was under way at two deaths and a pause: a batch of each partition.
    assert again <= 3 * 8 * TOGETHER
