"""What tests of parked messages share: the table as it is, waited for, and commands on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from starlette.responses import JSONResponse, Response

from tests.receiver import Received, Receiver
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text, team text)"


async def parked(settings: Settings) -> list[tuple[Any, ...]]:
    """(position, state, attempts, failures) of what is parked, in order."""
    query = "SELECT position, state, attempts, failures FROM triggerkit.parked ORDER BY position"
    return await fetch(settings, query)


async def fetch(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query on the state."""
    async with await connect(settings.state_dsn, "test") as state:
        cursor = await state.execute(query)
        return await cursor.fetchall()


async def until(
    settings: Settings, query: str, wanted: Callable[[list[tuple[Any, ...]]], bool]
) -> list[tuple[Any, ...]]:
    """Wait until the rows of `query` on the state are as `wanted`."""
    found: list[tuple[Any, ...]] = []
    try:
        async with asyncio.timeout(30), await connect(settings.state_dsn, "test") as state:
            while True:
                cursor = await state.execute(query)
                found = await cursor.fetchall()
                if wanted(found):
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not so in 30 s: {found}") from None


async def until_states(settings: Settings, *wanted: str) -> None:
    """Wait until the parked messages are in these states, in order of their positions."""
    query = "SELECT state FROM triggerkit.parked ORDER BY position"
    await until(settings, query, lambda rows: [state for (state,) in rows] == [*wanted])


async def command(
    settings: Settings, work: Callable[[psycopg.AsyncConnection], Awaitable[Any]]
) -> Any:
    """Do `work` over a connection to the state."""
    async with await connect(settings.state_dsn, "test") as state:
        return await work(state)


def names(requests: list[Received]) -> list[str]:
    """The names in the records, in order of arrival."""
    return [m["record"].get("name", "") for r in requests for m in r.messages]


def carrying(receiver: Receiver, name: str) -> list[Received]:
    """The requests with a record of this name."""
    return [r for r in receiver.requests if name in names([r])]


def refuse(*bad: str, status: int = 422) -> Callable[[Received], Awaitable[Response]]:
    """Refuse requests that carry one of these names."""

    async def answer(received: Received) -> Response:
        is_bad = not set(bad).isdisjoint(names([received]))
        return JSONResponse({}, status if is_bad else 200)

    return answer


def failing_item(*bad: str, **given: object) -> Callable[[Received], Awaitable[Response]]:
    """Name as failed the items that carry one of these names."""

    async def answer(received: Received) -> Response:
        failed = [
            {"idempotency_key": m["metadata"]["idempotency_key"], "error": "no good", **given}
            for m in received.messages
            if m["record"]["name"] in bad
        ]
        return JSONResponse({"failed": failed} if failed else {})

    return answer
