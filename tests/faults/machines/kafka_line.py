"""The line between `stream` and Kafka is cut, while events are written there."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.command_process import CommandProcess
from tests.faults.machines.data import DataMachine, entered_background
from tests.faults.machines.network import Network, between
from tests.faults.machines.partitions import CUT_S, DIRECTIONS, Direction, Outcome
from tests.faults.machines.plant import DELAY_S, LOSS, Judged
from tests.faults.test_kafka_kills import TABLES, Writer, check, until_written
from tests.integration.events.written import Topics, declare_events, with_kafka
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate

NAME = "stream and Kafka"

#: Seconds between two transactions of twenty changes.
_PAUSE_S = 0.25


def run_kafka(
    folder: Path, directions: Sequence[Direction] = DIRECTIONS, cut_s: float = CUT_S
) -> Outcome:
    """Cut it in each direction while rows change; fail if an event is missing or out of order.

    Raises:
        CannotMakeMachines: this system cannot; it says what is missing.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with ExitStack() as stack:
        network = Network(DELAY_S, LOSS)
        network.make({"one": 1, "broker": 1, "data": 3})
        stack.callback(network.remove)
        one, broker = network.machines["one"], network.machines["broker"]
        data = DataMachine(folder, network.machines["data"], network.subnet)
        stack.callback(data.close)
        server = KafkaServer(broker.address, entered_background(broker))
        stack.callback(server.remove)
        server.start()
        stack.enter_context(one.entered())
        settings = with_kafka(_settings(data), server.settings())
        asyncio.run(_declare(settings))
        writer = Writer(settings, seed)
        stack.callback(writer.close)
        stream = CommandProcess(folder, "stream", ["triggerkit", "stream"], settings.environment())
        stack.callback(stream.kill)
        recovered: dict[Direction, float] = {}
        for direction in directions:
            there, back = direction in ("both", "there"), direction in ("both", "back")
            with _changing(writer):
                time.sleep(1)
                network.cut(between([one.address], [broker.address], there=there, back=back))
                time.sleep(cut_s)
            network.mend()
            mended_at = time.monotonic()
            until_written(settings)
            recovered[direction] = time.monotonic() - mended_at
            print(f"{NAME}, {direction}: all is written after {recovered[direction]:.1f} s")
        assert stream.process.poll() is None, stream.said()
        topics = Topics(server, settings)
        twice = check(writer.expected, {table: topics.read(table) for table in TABLES})
        return Outcome(NAME, recovered, Judged(writer.count, twice))


def _settings(data: DataMachine) -> Settings:
    servers = data.servers
    return Settings.parse(
        {
            "DATABASE_URL": servers.postgres.url,
            "REDIS_URL": servers.redis.url,
            "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the fault tests",
        }
    )


async def _declare(settings: Settings) -> None:
    async with await connect(settings.state_dsn, "test") as state:
        await migrate(state)
    await execute(
        settings,
        *(f"CREATE TABLE {table} (id bigint PRIMARY KEY, version bigint)" for table in TABLES),
        *(f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in TABLES),
    )
    await declare_events(settings, tables=list(TABLES), partitions=4)


@contextmanager
def _changing(writer: Writer) -> Iterator[None]:
    stop = threading.Event()

    def change() -> None:
        while not stop.wait(_PAUSE_S):
            writer.write()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
