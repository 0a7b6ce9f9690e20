"""Events that a real stream writes into a real Kafka, read from there over REST and by commands."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.acceptance.project import clean_environment
from tests.conformance.events.world import (
    PASSWORD,
    POSTS,
    USER,
    USERS,
    events_over,
    events_over_kafka,
    ids,
    make_topics,
    prepare,
)
from tests.integration.events.written import TABLE, declare_events, with_kafka
from tests.integration.pipeline import execute, run_until_canceled
from tests.kafka import KafkaServer
from triggerkit.cli.main import application
from triggerkit.errors import CannotConnect
from triggerkit.events.source import OffsetOutOfRange
from triggerkit.events.users import add_user
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

#: In the name of the topic, so that no other test has it.
LABEL = "kafka-stream"

TOPIC = f"triggerkit.{LABEL}.posts"


def test_a_commit_wakes_who_waits_before_there_is_a_topic(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    over_kafka = with_kafka(settings, kafka_server.settings())

    async def scenario() -> None:
        await execute(over_kafka, TABLE)
        await declare_events(over_kafka, tables=["posts"], database=LABEL)
        async with await connect(settings.state_dsn, "test") as state:
            await add_user(state, USER, PASSWORD, "test")
        with events_over(over_kafka) as world:
            # It begins with the latest, when Kafka has no such topic.
            path = f"consume/g/one/{TOPIC}?timeout=60000"
            waiting = asyncio.create_task(asyncio.to_thread(world.done, "GET", path))
            await asyncio.to_thread(world.until_consuming)
            async with run_until_canceled(over_kafka):
                await execute(over_kafka, "INSERT INTO posts VALUES (1, 'one')")
                async with asyncio.timeout(40):
                    (message,) = await waiting
                await execute(over_kafka, "UPDATE posts SET title = 'two'", "DELETE FROM posts")
                found: list[str] = []
                async with asyncio.timeout(30):
                    while len(found) < 2:
                        some = await asyncio.to_thread(world.done, "GET", path.replace("60", "5"))
                        found += [orjson.loads(one["value"])["event"] for one in some]
        assert ids([message]) == [1]
        assert (message["topic"], message["offset"]) == (TOPIC, 0)
        assert {"key": "action", "value": "insert"} in message["headers"]
        assert found == ["updated", "deleted"]

    asyncio.run(scenario())


@pytest.fixture
def command(
    settings: Settings, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> CliRunner:
    """Commands run where Kafka is set."""
    monkeypatch.setenv("DATABASE_URL", settings.source_dsn)
    for name, value in kafka_server.settings().items():
        monkeypatch.setenv(name, value)
    return CliRunner()


def run(command: CliRunner, *arguments: str) -> str:
    result = command.invoke(application("events"), ["events", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_commands_read_what_the_api_reads(
    settings: Settings, kafka_server: KafkaServer, command: CliRunner
) -> None:
    with events_over_kafka(settings, kafka_server) as world:
        world.write(range(1, 21))
        (posts, users) = orjson.loads(run(command, "topics", "--json"))
        ends = [one["offset"] for one in world.done("POST", "offsets/latest")]
        assert posts["latest"] == max(ends) < 20
        assert (posts["partitions"], users["latest"]) == (8, 0)
        found = orjson.loads(run(command, "fetch", POSTS, "--json"))
        by_place = sorted(found, key=lambda message: (message["partition"], message["offset"]))
        assert by_place == world.fetch_all()
        later = orjson.loads(run(command, "fetch", POSTS, "--offset", "1", "--json"))
        assert {(m["partition"], m["offset"]) for m in later} == {
            (m["partition"], m["offset"]) for m in found if m["offset"] >= 1
        }
        with pytest.raises(OffsetOutOfRange, match="the earliest is 0"):
            run(command, "fetch", POSTS, "--offset", "1000")


def test_tail_follows_what_comes_to_kafka(
    settings: Settings, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    with events_over_kafka(settings, kafka_server) as world:
        world.write([1])
        process = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", "events", "tail", "--from", "earliest", "--json"],
            cwd=tmp_path,
            env={**clean_environment(), **world.settings.environment(), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert ids([orjson.loads(process.stdout.readline())]) == [1]
            world.write([2], table="users")
            message = orjson.loads(process.stdout.readline())
            assert (ids([message]), message["topic"]) == ([2], USERS)
        finally:
            process.kill()
            process.wait()


def test_commands_say_that_kafka_is_away(
    settings: Settings, kafka_server: KafkaServer, command: CliRunner
) -> None:
    prepare(settings)
    with kafka_server.away():
        began = time.monotonic()
        with pytest.raises(CannotConnect, match="correct KAFKA_BOOTSTRAP_SERVERS"):
            run(command, "topics")
        assert time.monotonic() - began < 30
    make_topics(kafka_server, POSTS)
