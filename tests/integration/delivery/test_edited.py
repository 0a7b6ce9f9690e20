"""A consumer that is edited while its messages are under way loses none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import TABLE, command, fetch, until
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit import Change
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

ROWS = 80


def loud(change: Change[dict[str, str]]) -> dict[str, Any]:
    return {"loud": int(change.record["id"]), "key": change.metadata.idempotency_key}


def even(change: Change[dict[str, str]]) -> bool:
    return int(change.record["id"]) % 2 == 0


async def edit(settings: Settings, receiver: Receiver, definition: ConsumerDefinition) -> None:
    async with await connect(settings.source_dsn, "test") as source:
        declared = Declared("test", definition, "/push")
        await command(
            settings, lambda state: apply(source, state, [declared], receiver.url, may_lose=True)
        )


def ids(messages: Iterable[dict[str, Any]]) -> list[int]:
    return sorted({int(m["loud"] if "loud" in m else m["record"]["id"]) for m in messages})


def bodies_by_id(receiver: Receiver) -> dict[str, set[bytes]]:
    sent: dict[str, set[bytes]] = {}
    for request in receiver.requests:
        sent.setdefault(request.batch_id, set()).add(request.body)
    return sent


class Answers:
    """Fails until it is told to take what comes, and remembers what it took."""

    def __init__(self) -> None:
        self.is_well = False
        self.taken: list[dict[str, Any]] = []

    async def __call__(self, received: Received) -> Response:
        if not self.is_well:
            return JSONResponse({}, 503)
        self.taken += received.messages
        return JSONResponse({})


EDITS = {
    "one at a time": ({"batch_size": 50}, {"batch_size": 1}, range(1, ROWS + 1)),
    "together": ({"batch_size": 1}, {"batch_size": 50}, range(1, ROWS + 1)),
    "less at a time": ({"batch_size": 50}, {"batch_size": 3}, range(1, ROWS + 1)),
    "transformed": ({"batch_size": 50}, {"batch_size": 50, "transform": loud}, range(1, ROWS + 1)),
    "filtered": ({"batch_size": 50}, {"batch_size": 50, "filter": even}, range(2, ROWS + 1, 2)),
    "compared": (
        {"batch_size": 50},
        {"batch_size": 1, "filters": [("id", "<=", 20)]},
        range(1, 21),
    ),
    "grouped": ({"batch_size": 50}, {"batch_size": 1, "group_by": ["id"]}, range(1, ROWS + 1)),
    "of no action": ({"batch_size": 50}, {"batch_size": 1, "actions": ["delete"]}, range(0)),
}


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("name", EDITS)
def test_what_waits_to_be_sent_again_is_sent_as_the_edited_consumer_has_it(
    settings: Settings, name: str, *, is_restarted: bool, short_waits: None
) -> None:
    before, after, wanted = EDITS[name]
    answers = Answers()

    async def scenario() -> None:
        async with Receiver.start(answers) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", **before))  # type: ignore[arg-type]
            async with streaming(settings, receiver):
                await execute(settings, f"INSERT INTO items SELECT generate_series(1, {ROWS}), 'x'")
                await receiver.until(lambda: len(receiver.requests) >= 16)
                if not is_restarted:
                    await edit(settings, receiver, changes("items", **after))  # type: ignore[arg-type]
                    answers.is_well = True
                    await all_taken(receiver)
            if is_restarted:
                await edit(settings, receiver, changes("items", **after))  # type: ignore[arg-type]
                answers.is_well = True
                async with streaming(settings, receiver):
                    await all_taken(receiver)
            # A push that is under way as the consumer is edited is of the one before.
            assert ids(answers.taken) == [*wanted] or not is_restarted
            assert all(len(bodies) == 1 for bodies in bodies_by_id(receiver).values())
            assert await fetch(settings, "SELECT FROM triggerkit.parked") == []

    async def all_taken(receiver: Receiver) -> None:
        await execute(settings, "UPDATE items SET name = 'y' WHERE id = 4 AND name = 'x'")
        await until(
            settings,
            "SELECT count(*) FROM triggerkit.cursors WHERE batch_id IS NOT NULL",
            lambda rows: rows == [(0,)],
        )
        if wanted:
            await receiver.until(lambda: set(wanted) <= set(ids(answers.taken)))

    asyncio.run(scenario())


def test_a_parked_message_that_is_transformed_otherwise_goes_by_another_id(
    settings: Settings, short_waits: None
) -> None:
    async def refuse(received: Received) -> Response:
        is_plain = "record" in received.messages[0]
        return JSONResponse({}, 422 if is_plain else 200)

    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one')")
                await receiver.until(lambda: len(receiver.requests) >= 3)
                await edit(settings, receiver, changes("items", transform=loud))
                await receiver.until(lambda: "loud" in receiver.messages[-1])
            assert all(len(bodies) == 1 for bodies in bodies_by_id(receiver).values())

    asyncio.run(scenario())
