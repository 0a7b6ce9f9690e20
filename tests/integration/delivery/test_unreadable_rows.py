"""Rows with values that Postgres takes and a parser does not: they stop nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import until_states
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit import Change
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows
from triggerkit.settings import Settings

TABLE = "CREATE TABLE items (id int PRIMARY KEY, team text, doc json)"

#: By row: half a surrogate pair, a number beyond any double, a thousand nested arrays.
STRANGE = {
    1: r"""'"\ud800"'""",
    2: "'1e400'",
    3: "(repeat('[', 1000) || repeat(']', 1000))::json",
}

INSERTS = [f"INSERT INTO items VALUES ({id_}, 'red', {doc})" for id_, doc in STRANGE.items()]


def always(change: Change[dict[str, Any]]) -> bool:
    return True


def same(change: Change[dict[str, Any]]) -> dict[str, Any]:
    return {"id": change.record["id"]}


def leave(change: Change[dict[str, Any]]) -> bool:
    raise SystemExit(1)


def stop(change: Change[dict[str, Any]]) -> bool:
    raise KeyboardInterrupt


#: Options that a row is looked at for, and whether such a row is parked for them.
OPTIONS: dict[str, tuple[ConsumerDefinition, bool]] = {
    "plain": (changes("items"), False),
    "group_by": (changes("items", group_by=["team"], batch_size=10), False),
    "group_by_it": (changes("items", group_by=["doc"]), False),
    "when_changed": (changes("items", when_changed=["doc"]), False),
    "when_changed_other": (rows("items", when_changed=["team"], start="end"), False),
    "filters": (changes("items", filters=[("team", "==", "red")]), False),
    "filter": (changes("items", filter=always), True),
    "transform": (changes("items", transform=same), True),
    "exit": (changes("items", filter=leave), True),
    "interrupt": (changes("items", filter=stop), True),
}


async def refuse(received: Received) -> Response:
    return JSONResponse({}, 400)


def ids_in(receiver: Receiver) -> set[int]:
    """Return the rows that were pushed, by bytes that need no parser."""
    bodies = [r.body for r in receiver.requests]
    return {i for i in range(1, 10) if any(b'"id":%d' % i in body for body in bodies)}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_strange_row_stops_no_consumer(settings: Settings, option: str) -> None:
    """It is delivered, or parked where a function of the consumer would have to read it."""
    definition, is_parked = OPTIONS[option]
    is_everything_parked = option in ("exit", "interrupt")

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                await execute(settings, *INSERTS, "UPDATE items SET team = 'blue' WHERE id = 1")
                await execute(settings, "INSERT INTO items VALUES (4, 'red', '{}')")
                if is_parked:
                    # The update of row 1 is behind its insert.
                    states = ["failing", "failing", "failing", "waiting"]
                    await until_states(settings, *states, *["failing"] * is_everything_parked)
                if not is_everything_parked:
                    await receiver.until(lambda: 4 in ids_in(receiver))
                if not is_parked:
                    await receiver.until(lambda: ids_in(receiver) == {1, 2, 3, 4})

    asyncio.run(scenario())


@pytest.mark.usefixtures("short_waits")
def test_a_strange_row_that_is_refused_is_parked_and_tried_again(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", max_attempts=3))
            async with streaming(settings, receiver):
                await execute(settings, *INSERTS)
                await until_states(settings, "blocked", "blocked", "blocked")
        assert len(receiver.requests) == 9, "each three times"

    asyncio.run(scenario())


def test_an_unchanged_large_value_is_completed_beside_a_strange_one(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                TABLE,
                "ALTER TABLE items ADD large text, ALTER large SET STORAGE EXTERNAL",
            )
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    *INSERTS,
                    "UPDATE items SET large = repeat('x', 5000)",
                    "UPDATE items SET team = 'blue'",
                )
                await receiver.until(lambda: len(receiver.requests) == 9)
        updates = [r.body for r in receiver.requests if b'"team":"blue"' in r.body]
        assert len(updates) == 3
        assert all(b'"large":"%b"' % (b"x" * 5000) in body for body in updates)
        assert any(rb'"doc":"\ud800"' in body for body in updates)

    asyncio.run(scenario())
