"""A message that the endpoint fails at is found and parked, but only while others go through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import psycopg
import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

pytestmark = pytest.mark.usefixtures("short_waits")

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"

#: The row that the receiver fails at.
POISON = 7

#: How many other rows change at once: enough to be in several partitions.
OTHERS = 16

#: Asks for no back-off worth the name.
AT_ONCE = {"retry-after": "0.02"}


def failing(status: int = 500) -> Response:
    return JSONResponse({}, status, headers=AT_ONCE)


def is_poisoned(received: Received) -> bool:
    return any(m["record"]["name"] == "poison" for m in received.messages)


async def fail_at_poison(received: Received) -> Response:
    return failing() if is_poisoned(received) else JSONResponse({})


async def hang_at_poison(received: Received) -> Response:
    if is_poisoned(received):
        await asyncio.Event().wait()
    return JSONResponse({})


async def fail_at_everything(_received: Received) -> Response:
    return failing()


@asynccontextmanager
async def other_rows(settings: Settings, receiver: Receiver) -> AsyncIterator[None]:
    """Other rows of all partitions change, time and again once some of the last have arrived."""

    async def change() -> None:
        for first in count(1000 * (1 + len(receiver.requests)), OTHERS):
            last = first + OTHERS - 1
            await execute(
                settings, f"INSERT INTO items SELECT generate_series({first}, {last}), 'other'"
            )
            await receiver.until(partial(arrived, receiver, first))

    changing = asyncio.create_task(change())
    try:
        yield
    finally:
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)


def arrived(receiver: Receiver, first: int) -> bool:
    return any(int(key) >= first for r in receiver.requests[-100:] for key in r.keys)


async def parked(settings: Settings) -> list[tuple[str, str]]:
    """The keys and reasons of what is parked, in order."""
    async with await psycopg.AsyncConnection.connect(settings.state_dsn) as state:
        cursor = await state.execute("SELECT key, reason FROM triggerkit.parked ORDER BY position")
        return await cursor.fetchall()


async def until_parked(settings: Settings, number: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(60):
        while True:
            found = await parked(settings)
            if len(found) >= number:
                return found
            await asyncio.sleep(0.02)


def taken(receiver: Receiver) -> list[str]:
    """The keys of the rows that were taken, in order, without the other rows'."""
    good = [r for r in receiver.requests if not is_poisoned(r)]
    return [key for r in good for key in r.keys if int(key) < 1000]


@pytest.mark.parametrize(
    ("answer", "timeout_s", "told"),
    [(fail_at_poison, 30, "answered 500"), (hang_at_poison, 0.3, "no answer within 0.3 s")],
    ids=["500", "time-out"],
)
def test_what_fails_alone_while_others_go_through_is_parked_and_its_row_waits(
    answer: Callable[[Received], Awaitable[Response]],
    timeout_s: float,
    told: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.1)

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100, timeout_s=timeout_s), TABLE, answer=answer
        ) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT i, CASE i WHEN 7 THEN 'poison' ELSE 'good' END "
                "FROM generate_series(1, 100) i",
                "UPDATE items SET name = 'behind' WHERE id = 7",
            )
            async with other_rows(settings, receiver):
                found = await until_parked(settings, 2)
        assert [key for key, _ in found] == ['public.items:["7"]'] * 2
        assert found[0][1].startswith(f"{told} in ")
        assert found[0][1].endswith("attempts, while other messages were delivered")
        assert found[1][1] == "waits behind a parked message of its row"
        assert sorted(map(int, taken(receiver))) == [n for n in range(1, 101) if n != POISON]
        assert identical_bodies(receiver)

    asyncio.run(scenario())


def identical_bodies(receiver: Receiver) -> bool:
    """Whether each batch had the same body in all attempts."""
    bodies: dict[str, set[bytes]] = {}
    for request in receiver.requests:
        bodies.setdefault(request.batch_id, set()).add(request.body)
    return all(len(found) == 1 for found in bodies.values())


def test_in_an_outage_nothing_is_blamed(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=fail_at_everything
        ) as receiver:
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 100)")
            await receiver.until(lambda: len(receiver.requests) > 200)
            batches = {r.batch_id for r in receiver.requests}
            receiver.answer = fail_at_poison
            failed = len(receiver.requests)
            await receiver.until(
                lambda: len({k for r in receiver.requests[failed:] for k in r.keys}) == 100
            )
        assert {r.batch_id for r in receiver.requests} == batches
        assert len(batches) == 8
        assert identical_bodies(receiver)
        assert await parked(settings) == []

    asyncio.run(scenario())


def test_without_others_to_compare_with_a_batch_is_neither_halved_nor_parked(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=fail_at_poison
        ) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (7, 'poison')",
                "UPDATE items SET name = 'behind'",
            )
            await receiver.until(lambda: len(receiver.requests) > 30)
        assert len({r.batch_id for r in receiver.requests}) == 1
        assert await parked(settings) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429])
def test_an_answer_that_is_about_the_sender_never_isolates(settings: Settings, status: int) -> None:
    async def answer(received: Received) -> Response:
        return failing(status) if is_poisoned(received) else JSONResponse({})

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=answer
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (7, 'poison')")
            async with other_rows(settings, receiver):
                await receiver.until(lambda: len(poisoned(receiver)) > 30)
        assert len({r.batch_id for r in poisoned(receiver)}) == 1
        assert await parked(settings) == []

    asyncio.run(scenario())


def poisoned(receiver: Receiver) -> list[Received]:
    return [r for r in receiver.requests if is_poisoned(r)]


def test_a_restart_in_the_midst_of_the_isolation_begins_it_anew(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start(fail_at_poison) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=100))
            for batches in (2, 3, 4):
                async with streaming(settings, receiver):
                    if batches == 2:
                        await execute(
                            settings,
                            "INSERT INTO items SELECT i, CASE i WHEN 7 THEN 'poison' END "
                            "FROM generate_series(1, 200) i",
                        )
                    async with other_rows(settings, receiver):
                        await receiver.until(
                            lambda n=batches: (  # type: ignore[misc]
                                len({r.batch_id for r in poisoned(receiver)}) >= n
                            )
                        )
            async with streaming(settings, receiver), other_rows(settings, receiver):
                found = await until_parked(settings, 1)
                await receiver.until(lambda: len(set(taken(receiver))) == 199)
            assert [key for key, _ in found] == ['public.items:["7"]']
            assert identical_bodies(receiver)

    asyncio.run(scenario())
