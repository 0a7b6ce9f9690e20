"""Events of a test's own tables, written into a real Kafka by a stream in the test's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
import psycopg
from confluent_kafka import Message

from tests.integration.pipeline import execute, run_until_canceled
from tests.kafka import KafkaServer
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.events.declaration import read_events
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = """
CREATE TABLE posts (id bigint PRIMARY KEY, title text);
ALTER TABLE posts REPLICA IDENTITY FULL
"""

#: Seconds until something has happened.
PATIENCE_S = 45.0


class Written(NamedTuple):
    """A message of a topic, read: `value` is None of a tombstone."""

    key: str | None
    value: dict[str, Any] | None
    headers: dict[str, str]
    partition: int
    timestamp: int

    @classmethod
    def of(cls, message: Message) -> Written:
        key, value, headers = message.key(), message.value(), message.headers() or []
        return cls(
            None if key is None else as_text(key),
            None if value is None else orjson.loads(value),
            {str(header[0]): as_text(header[1]) for header in headers},
            message.partition() or 0,
            message.timestamp()[1],
        )

    @property
    def event(self) -> str | None:
        """What the event is."""
        return None if self.value is None else self.value["event"]


def as_text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else (value or b"").decode()


class Topics:
    """The topics of one test's database, whose label is the database's name."""

    def __init__(self, server: KafkaServer, settings: Settings) -> None:
        self.server = server
        self.label = psycopg.conninfo.conninfo_to_dict(settings.source_dsn)["dbname"]

    def name(self, table: str = "posts") -> str:
        return f"triggerkit.{self.label}.{table}"

    def read(self, table: str = "posts") -> list[Written]:
        """All messages of a topic; none if there is no topic."""
        if self.name(table) not in self.server.topics():
            return []
        return [Written.of(message) for message in self.server.read(self.name(table))]

    async def until(self, count: int, table: str = "posts") -> list[Written]:
        """Wait for at least `count` messages of a topic, and return all."""

        def enough() -> list[Written] | None:
            found = self.read(table)
            return found if len(found) >= count else None

        found: list[Written] = await until(enough, f"{count} messages")
        return found


def with_kafka(settings: Settings, kafka: dict[str, str]) -> Settings:
    """The settings that also lead to Kafka."""
    return Settings.parse({**settings.environment(), **kafka})


async def declare_events(settings: Settings, *, may_lose: bool = False, **events: Any) -> list[str]:
    """Apply `[events]`, for Kafka where the settings lead there."""
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        declared = Declarations(events=read_events(events), has_kafka=bool(settings.kafka))
        return await apply(source, state, declared, "http://127.0.0.1:9", may_lose=may_lose)


@asynccontextmanager
async def writing(settings: Settings, *setup: str, **events: Any) -> AsyncIterator[None]:
    """A stream that writes the events of the tables that `setup` makes."""
    await execute(settings, *setup)
    await declare_events(settings, **{"tables": ["posts"], **events})
    async with run_until_canceled(settings):
        yield


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until `condition` returns something, and return that."""
    deadline = time.monotonic() + PATIENCE_S

    def look() -> Any:
        while not (found := condition()):
            assert time.monotonic() < deadline, f"there is no {what}"
            time.sleep(0.05)
        return found

    return await asyncio.to_thread(look)


def one(settings: Settings, query: str, *parameters: object) -> Any:
    """The first value that `query` on the state returns, None without a row."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]
