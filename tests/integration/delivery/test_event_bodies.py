"""Events pushed over HTTP: each body is what the table's topic has, sent as messages are."""

from __future__ import annotations

import asyncio
import re
import secrets
import tomllib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook
from starlette.responses import JSONResponse, Response

from tests import ROOT
from tests.integration.events.written import declare_events
from tests.integration.parked import fetch, until, until_states
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, read_file
from triggerkit.consumers.definition import changes, rows
from triggerkit.encryption import Keyring
from triggerkit.events.open import opened_source
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings
from triggerkit.signature import new_secret
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text, team text)"
FULL = "ALTER TABLE items REPLICA IDENTITY FULL"

EVENTS = changes("items", body="event")


async def topic_values(settings: Settings, topic: str) -> list[bytes]:
    """All values of a topic."""
    async with (
        await connect(settings.state_dsn, "test") as state,
        opened_source({}, state) as source,
    ):
        view = await source.look([topic])
        read = await view.read({(topic, number): 0 for number in range(PARTITIONS)})
    return [(message.value or "").encode() for message in read.messages]


def of(receiver: Receiver, key: str) -> list[str]:
    """What happened to a row, in order of arrival."""
    return [m["event"] for m in receiver.messages if m.get("id") == key]


def refusing(name: str, status: int = 422) -> Callable[[Received], Awaitable[Response]]:
    """Refuse events of rows that are named so."""

    async def answer(received: Received) -> Response:
        named = [(m.get("data") or {}).get("name") for m in received.messages]
        return JSONResponse({}, status if name in named else 200)

    return answer


def test_each_body_is_what_the_topic_of_the_table_has(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, EVENTS, TABLE, FULL) as receiver:
            await declare_events(settings, tables=["items"], database="app")
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'a'), (2, 'b')",
                "UPDATE items SET name = 'ä\"' WHERE id = 1",
                "UPDATE items SET id = 5 WHERE id = 2",
                "DELETE FROM items WHERE id = 1",
                "TRUNCATE items",
                "INSERT INTO items VALUES (1, repeat('x', 20000))",
            )
            await receiver.until(lambda: len(receiver.messages) == 8)
            values = await topic_values(settings, "triggerkit.app.items")
        assert sorted(r.body for r in receiver.requests) == sorted(values)
        assert of(receiver, "1") == ["inserted", "updated", "deleted", "inserted"]
        assert of(receiver, "2") == ["inserted", "deleted"]
        (truncated,) = [m for m in receiver.messages if m["event"] == "truncated"]
        assert truncated.keys() == {"collection", "created_at", "event", "table"}

    asyncio.run(scenario())


def test_rows_that_were_there_are_inserted_and_composite_keys_are_arrays(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        setup = (
            "CREATE SCHEMA crm",
            "CREATE TABLE crm.members (team int, name text, PRIMARY KEY (team, name))",
            "INSERT INTO crm.members VALUES (1, 'x')",
        )
        async with pipeline(settings, rows("crm.members", body="event"), *setup) as receiver:
            await receiver.until(lambda: bool(receiver.messages))
        (found,) = receiver.messages
        assert (found["event"], found["id"]) == ("inserted", ["1", "x"])
        assert (found["collection"], found["table"]) == ("crm.members", "members")

    asyncio.run(scenario())


@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_deleted_row_that_the_wal_does_not_carry_is_that_of_the_log(
    settings: Settings, batch_size: int
) -> None:
    async def scenario() -> None:
        definition = changes("items", body="event", batch_size=batch_size)
        async with pipeline(settings, definition, TABLE) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'a'), (2, 'b')")
            await receiver.until(lambda: len(receiver.messages) == 2)
            await execute(
                settings,
                "DELETE FROM items WHERE id = 1",
                "INSERT INTO items VALUES (1, 'again'); DELETE FROM items WHERE id IN (1, 2)",
            )
            await receiver.until(lambda: len(receiver.messages) == 6)
        deleted = [m["data"] for m in receiver.messages if m["event"] == "deleted"]
        assert sorted(row["name"] for row in deleted) == ["a", "again", "b"]

    asyncio.run(scenario())


def test_a_refused_event_is_parked_with_the_later_ones_of_its_row_and_sent_by_one_id(
    settings: Settings, short_waits: None
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, EVENTS, TABLE, answer=refusing("bad")) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'bad'), (2, 'good')",
                "UPDATE items SET name = 'better'",
                "DELETE FROM items WHERE id = 1",
            )
            await until_states(settings, "failing", "waiting", "waiting")
            await receiver.until(lambda: len(of(receiver, "2")) == 2)
            await receiver.until(lambda: len(of(receiver, "1")) >= 3)
            assert set(of(receiver, "1")) == {"inserted"}
            receiver.answer = accept
            await receiver.until(lambda: of(receiver, "1")[-2:] == ["updated", "deleted"])
        refused = [r for r in receiver.requests if b'"bad"' in r.body and b'"inserted"' in r.body]
        assert len({r.batch_id for r in refused}) == 1
        assert len({r.body for r in refused}) == 1
        (last,) = [m for m in receiver.messages if m["event"] == "deleted"]
        assert last["data"] == {"id": 1, "name": "better", "team": None}

    asyncio.run(scenario())


def test_a_batch_is_a_list_of_events_and_what_fails_of_it_is_found(
    settings: Settings, short_waits: None
) -> None:
    async def scenario() -> None:
        definition = changes("items", body="event", batch_size=10, max_attempts=1)
        async with pipeline(settings, definition, TABLE, answer=refusing("bad")) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT n, CASE n WHEN 7 THEN 'bad' ELSE 'good' END "
                "FROM generate_series(1, 40) n",
            )
            await until_states(settings, "blocked")
            await receiver.until(lambda: len({m["id"] for m in receiver.messages}) == 40)
        assert all(orjson.loads(r.body).keys() == {"data"} for r in receiver.requests)

    asyncio.run(scenario())


def test_what_was_under_way_when_the_stream_ended_is_sent_again_as_it_was(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        arrived, hold = asyncio.Event(), asyncio.Event()

        async def held(_received: Received) -> Response:
            arrived.set()
            await hold.wait()
            return JSONResponse({})

        async with Receiver.start(held) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", body="event", batch_size=5))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'a'); DELETE FROM items")
                await arrived.wait()
            receiver.answer = accept
            hold.set()
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.requests) == 2)
        first, again = receiver.requests
        assert (first.batch_id, first.body) == (again.batch_id, again.body)
        assert [m["event"] for m in again.messages] == ["inserted", "deleted"]

    asyncio.run(scenario())


def test_a_parked_message_goes_by_the_body_that_its_consumer_has_by_now(
    settings: Settings, short_waits: None
) -> None:
    async def scenario() -> None:
        async with Receiver.start(refusing("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, EVENTS)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await until_states(settings, "failing")
                receiver.answer = accept
                await declare(settings, receiver, changes("items"))
                await until(settings, "SELECT 1 FROM triggerkit.parked", lambda left: not left)
                await execute(settings, "UPDATE items SET name = 'good'")
                await receiver.until(lambda: "metadata" in receiver.messages[-1])
        assert receiver.messages[0]["event"] == "inserted"
        assert receiver.messages[-1]["record"]["name"] == "good"

    asyncio.run(scenario())


def test_filters_decide_as_they_do_for_messages(settings: Settings) -> None:
    async def scenario() -> None:
        definition = changes("items", body="event", filters=[("team", "==", "a")])
        async with pipeline(settings, definition, TABLE, FULL) as receiver:
            await execute(
                settings, "INSERT INTO items VALUES (1, 'x', 'b'), (2, 'x', 'a'), (3, 'x', 'a')"
            )
            await receiver.until(lambda: len(receiver.messages) == 2)
        assert sorted(m["id"] for m in receiver.messages) == ["2", "3"]

    asyncio.run(scenario())


def test_the_example_of_the_page_pushes_events_that_are_signed(settings: Settings) -> None:
    signing, key = new_secret(), SecretStr(secrets.token_urlsafe(32))
    keyed = settings.model_copy(
        update={"triggerkit_encryption_key": key, "triggerkit_allow_networks": "127.0.0.0/8"}
    )
    page = (ROOT / "docs" / "events.md").read_text()
    (example,) = re.findall(r"^```toml\n(\[endpoints.*?)^```", page, re.DOTALL | re.MULTILINE)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE posts (id bigint PRIMARY KEY, title text)")
            text = example.replace("https://crm.example.com/events", f"{receiver.url}/push")
            file = tomllib.loads(text)
            declared, endpoints = read_file(
                file["endpoints"], file["consumers"], {"CRM_SIGNING_SECRET": signing}
            )
            async with (
                await connect(settings.source_dsn, "test") as source,
                await connect(settings.state_dsn, "test") as state,
            ):
                keyring = Keyring(keyed.encryption_keys)
                declarations = Declarations(declared, endpoints)
                await apply(source, state, declarations, "", keyring=keyring)
            async with streaming(keyed, Receiver(url="http://127.0.0.1:9")):
                await execute(settings, "INSERT INTO posts VALUES (1, 'First')")
                await receiver.until(lambda: bool(receiver.requests))
        (received,) = receiver.requests
        assert received.headers["x-source"] == "shop"
        verified: Any = Webhook(signing).verify(received.body, received.headers)
        assert (verified["event"], verified["data"]) == ("inserted", {"id": 1, "title": "First"})

    asyncio.run(scenario())


def test_events_are_pushed_of_tables_without_a_topic(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, EVENTS, TABLE) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'a')")
            await receiver.until(lambda: len(receiver.messages) == 1)
        assert await fetch(settings, "SELECT * FROM triggerkit.topics") == []

    asyncio.run(scenario())
