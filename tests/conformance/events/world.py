"""Events behind a REST API, whatever holds them: changes are written, clients read over HTTP."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import orjson
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic

from tests.integration.serving import Answer, Site, serving
from tests.kafka import KafkaServer
from triggerkit.change import Action, RowChange, Transaction
from triggerkit.events.kafka.producer import EventProducer
from triggerkit.events.kafka.record import Record
from triggerkit.events.open import opened_source
from triggerkit.events.topics import LOG_PARTITIONS, Topic, store_topics
from triggerkit.events.users import add_user
from triggerkit.log.entry import Pending
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.application import Application

USER, PASSWORD = "reader", "a password for the tests"

POSTS, USERS = "triggerkit.d.posts", "triggerkit.d.users"


def basic(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """The header of a user."""
    raw = f"{user}:{password}".encode()
    return {"authorization": f"Basic {b64encode(raw).decode()}"}


@dataclass
class EventsWorld:
    """A served API over topics of two tables, and a hand to write changes of them."""

    settings: Settings
    site: Site
    written: int = 0

    @property
    def url(self) -> str:
        """Where clients of others find it."""
        return f"http://127.0.0.1:{self.site.port}/kafka"

    def write(
        self, ids: Sequence[int], table: str = "posts", action: Action = "insert", second: int = 0
    ) -> None:
        """Commit a change of each of these rows."""
        asyncio.run(self._write(ids, table, action, second))

    async def _write(self, ids: Sequence[int], table: str, action: Action, second: int) -> None:
        async with LogWriter.open(self.settings.state_dsn, 1) as writer:
            at = f"2026-10-28T21:39:{second:02}.127470Z"
            transaction = Transaction(Lsn(self.written + 1), at, 7)
            for index, row in enumerate(ids):
                record = {"id": row, "title": f"post {row}"}
                old: dict[str, object] | None = {"title": "before"} if action == "update" else None
                change = RowChange("public", table, action, (str(row),), record, old)
                writer.write(Pending(transaction, index, change, 7))
            await writer.commit(self.written + len(ids))
        first = self.written + 1
        self.written += len(ids)
        async with await connect(self.settings.state_dsn, "test") as state:
            # As the stream does once the log moved.
            await state.execute("SELECT pg_notify('triggerkit_log', 'database 1')")
            if self.settings.kafka:
                await self._produce(state, f"triggerkit.d.{table}", first)

    async def _produce(self, state: psycopg.AsyncConnection, topic: str, first: int) -> None:
        """Have Kafka get what the log has since the position `first`, as the stream writes it."""
        records = []
        async with opened_source({}, state) as log:
            view = await log.look()
            following = {(topic, partition): first for partition in range(LOG_PARTITIONS)}
            while min(following.values()) <= self.written:
                read = await view.read(following)
                following = read.following
                for message in read.messages:
                    value = (message.value or "").encode()
                    headers = tuple((one.key, one.value or "") for one in message.headers)
                    place = message.offset, message.topic, message.key
                    records.append(Record(*place, value, headers, message.timestamp))
        producer = EventProducer(self.settings.kafka)
        try:
            await producer.send("test", records, 30)
        finally:
            await producer.close()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a request as the user; a header's name has underscores for its hyphens."""
        given = {**basic(), **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        return self.site.request(method, f"/kafka/{path}", raw, given)

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Make a request that has to succeed."""
        answer = self.call(method, path, body, **headers)
        assert answer.status == 200, answer
        return answer.json

    def fetch_all(self, topic: str = POSTS) -> list[dict[str, Any]]:
        """All messages of a topic, by its partitions, from the beginning."""
        found = []
        for partition in range(self.done("GET", "topics")[topic]):
            offset = 0
            while True:
                place = {"topic": topic, "partition": partition, "offset": offset, "timeout": 0}
                messages = self.done("POST", "fetch", place)
                if not messages:
                    break
                found += messages
                offset = messages[-1]["offset"] + 1
        return found

    def consume(
        self,
        instance: str = "one",
        *,
        group: str = "g",
        topic: str = POSTS,
        timeout: int = 0,
        headers: dict[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Consume as an instance that begins with the earliest."""
        given = {"kafka_auto_offset_reset": "earliest", **(headers or {})}
        path = f"consume/{group}/{instance}/{topic}?timeout={timeout}"
        found: list[dict[str, Any]] = self.done("GET", path, **given)
        return found

    def until_consuming(self) -> None:
        """Wait for the first instance of a group."""
        pause = threading.Event()
        for _ in range(500):
            if any(group["instances"] for group in self.done("GET", "consumers")):
                return
            pause.wait(0.02)
        raise AssertionError("nobody consumes")

    def execute(self, statement: LiteralString) -> None:
        """Run a statement on the state."""
        with psycopg.connect(self.settings.state_dsn, autocommit=True) as connection:
            connection.execute(statement)


def ids(messages: Sequence[dict[str, Any]]) -> list[int]:
    """The rows' ids of messages."""
    return [orjson.loads(message["value"])["data"]["id"] for message in messages]


def prepare(settings: Settings) -> None:
    """Make the source, its two topics and the user."""

    async def made() -> None:
        async with await connect(settings.state_dsn, "test") as state:
            await state.execute(
                "INSERT INTO triggerkit.databases (name, slot_name, publication_name, "
                "system_identifier) VALUES ('d', 's', 'p', '7')"
            )
            topics = [
                Topic(f"triggerkit.d.{t}", "d", "public", t, database_id=1)
                for t in ("posts", "users")
            ]
            await store_topics(state, topics, [])
            await add_user(state, USER, PASSWORD, "test")

    asyncio.run(made())


@contextmanager
def events_world(
    kind: str, settings: Settings, request: pytest.FixtureRequest
) -> Iterator[EventsWorld]:
    """Events over the embedded log, or over Kafka."""
    if kind == "log":
        with events_over_the_log(settings) as world:
            yield world
        return
    with events_over_kafka(settings, request.getfixturevalue("kafka_server")) as world:
        yield world


@contextmanager
def events_over_kafka(settings: Settings, server: KafkaServer) -> Iterator[EventsWorld]:
    """Events over a real Kafka, whose topics are made anew."""
    prepare(settings)
    make_topics(server, POSTS, USERS)
    with events_over(Settings.parse({**settings.environment(), **server.settings()})) as world:
        yield world


@contextmanager
def events_over(settings: Settings) -> Iterator[EventsWorld]:
    """One more process over the same events."""
    with serving(Application(settings, [], None)) as site:
        yield EventsWorld(settings, site)


def make_topics(server: KafkaServer, *names: str, partitions: int = 8, **config: str) -> None:
    """Make topics that are empty, whether there were some of these names or not. Commits of these
    tests are of long ago: nothing is dropped for its age."""
    drop_topics(server, *names)
    settings = {"retention.ms": "-1", **{key.replace("_", "."): v for key, v in config.items()}}
    made = [NewTopic(name, partitions, 1, config=settings) for name in names]
    # The answers end with the client.
    admin = server.admin
    for answer in admin.create_topics(made, operation_timeout=20).values():
        answer.result(timeout=20)


def drop_topics(server: KafkaServer, *names: str) -> None:
    """Have no topics of these names."""
    admin = server.admin
    for answer in admin.delete_topics(list(names), operation_timeout=20).values():
        # Those that there are not are fine.
        with suppress(KafkaException):
            answer.result(timeout=20)
    pause = threading.Event()
    for _ in range(500):
        if not server.topics().keys() & set(names):
            return
        pause.wait(0.02)
    raise AssertionError("the topics are still there")


@contextmanager
def events_over_the_log(settings: Settings) -> Iterator[EventsWorld]:
    """Events over the embedded log."""
    prepare(settings)
    with events_over(settings) as world:
        yield world
