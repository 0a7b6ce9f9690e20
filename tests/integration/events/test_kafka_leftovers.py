"""What a producer had for what is written, and for a client that it let go of, is gone by then."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.events.test_kafka_faults import make
from tests.integration.events.written import Topics, with_kafka
from tests.ports import free_port
from triggerkit.events.kafka.faults import KafkaFault
from triggerkit.events.kafka.producer import EventProducer, Line
from triggerkit.events.kafka.record import Record
from triggerkit.settings import Settings


@pytest.fixture
def without_gc() -> Iterator[None]:
    """What nobody looks for stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def threads() -> int:
    """How many threads Kafka's clients have in this process."""
    tasks = Path("/proc/self/task").glob("*/comm")
    return sum(task.read_text().startswith("rdk:") for task in tasks)


def lines() -> list[Line]:
    """Those that there are in this process."""
    return [one for one in gc.get_objects() if isinstance(one, Line)]


def test_a_line_whose_records_are_written_leaves_nothing_behind(
    kafka: Settings, written: Topics
) -> None:
    """Each key with a parked message has a line of its own."""
    make(written.server, written.name())

    async def scenario() -> None:
        of_others = lines()
        producer = EventProducer(kafka.kafka)
        for number in range(50):
            record = Record(number, written.name(), str(number), b"{}", (), 0)
            await producer.send(("parked", number), [record], 30)
        # Until its thread has ended, that may have the last one in hand.
        await producer.close()
        assert [line for line in lines() if line not in of_others] == []

    asyncio.run(scenario())


def test_a_line_whose_records_are_refused_leaves_nothing_behind(
    kafka: Settings, written: Topics
) -> None:
    """The message may be discarded: nobody comes back to it."""
    make(written.server, written.name(), config={"max.message.bytes": "1000"})

    async def scenario() -> None:
        of_others = lines()
        producer = EventProducer(kafka.kafka)
        for number in range(5):
            record = Record(number, written.name(), str(number), b"x" * 5000, (), 0)
            with suppress(KafkaFault):
                await producer.send(("parked", number), [record], 30)
        await producer.close()
        gc.collect()
        assert [line for line in lines() if line not in of_others] == []

    asyncio.run(scenario())


@pytest.mark.usefixtures("without_gc")
def test_a_client_that_is_let_go_of_leaves_no_thread_behind(settings: Settings) -> None:
    nowhere = with_kafka(settings, {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})

    async def scenario() -> None:
        before = threads()
        producer = EventProducer(nowhere.kafka)
        for _ in range(3):
            producer.open()
            assert threads() > before
            await producer.close()
            assert threads() <= before

    asyncio.run(scenario())
