"""Commands that keep what is not theirs: memory, other users' places, answers that never end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection

from tests.integration.pipeline import execute
from tests.integration.tunnel.test_hostile import HELLO, last_word, opened
from tests.integration.tunnel.world import (
    declare,
    laptop,
    rows,
    streaming,
    token_of,
    until_rows,
)
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.tunnel import line


async def next_push(socket: ClientConnection) -> int:
    """The number of the next push that is sent."""
    async with asyncio.timeout(20):
        while True:
            said = await socket.recv()
            if isinstance(said, str) and orjson.loads(said)["type"] == "push":
                return int(orjson.loads(said)["number"])


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(orjson.dumps(message).decode())


def piece(number: int, text: bytes) -> bytes:
    return number.to_bytes(8) + text


def test_an_answer_that_never_ends_is_given_up_and_nothing_of_it_is_kept(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ANSWER_S", 0.3)

    async def scenario() -> None:
        await declare(keyed, changes("items", timeout_s=1, max_attempts=1))
        token = await token_of(keyed, "mallory")
        async with streaming(keyed), opened(port, token) as socket:
            await socket.send(orjson.dumps(HELLO).decode())
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            number = await next_push(socket)
            reply = {"type": "reply", "number": number, "status": 200, "headers": {}, "size": 4}
            await say(socket, **reply)
            await socket.send(piece(number, b"[]"))
            told = "SELECT DISTINCT status, error FROM triggerkit.deliveries"
            await until_rows(keyed, told, [(None, "the tunnel said nothing of it")])
            # What comes too late, and a second answer, are dropped; the line goes on.
            await socket.send(piece(number, b"{}"))
            again = await next_push(socket)
            await say(socket, **reply)
            await say(socket, **{**reply, "number": again})
            await socket.send(piece(again, b"{}  "))
            await say(socket, **{**reply, "number": again})
            await socket.send(piece(again, b"{}  "))
            delivered = "SELECT count(*) FROM triggerkit.deliveries WHERE status = 200"
            await until_rows(keyed, delivered, [(1,)])
            await execute(keyed, "INSERT INTO items VALUES (2, 'y')")
            await next_push(socket)
        assert not await rows(keyed, "SELECT FROM triggerkit.parked")

    asyncio.run(scenario())


def test_what_is_asked_for_again_and_again_is_sent_a_few_times_at_once(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", timeout_s=600))
        token = await token_of(keyed, "mallory")
        async with streaming(keyed), opened(port, token) as socket:
            await socket.send(orjson.dumps(HELLO).decode())
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            pushed = b""
            while not pushed.startswith(b'{"type":"push"'):
                said = await socket.recv()
                pushed = said.encode() if isinstance(said, str) else b""
            batch_id = orjson.loads(pushed)["headers"]["webhook-id"]
            for _ in range(1000):
                await say(socket, type="again", batch_id=batch_id)
            sent = 0
            with suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(1.5):
                        said = await socket.recv()
                    sent += isinstance(said, str) and orjson.loads(said)["type"] == "push"
            assert 1 <= sent <= 8

    asyncio.run(scenario())


def test_a_command_takes_the_place_of_no_other_users(keyed: Settings, port: int) -> None:
    """Not even by the name of that one's command."""

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        alice, mallory = await token_of(keyed, "alice"), await token_of(keyed, "mallory")
        async with opened(port, alice) as hers, opened(port, mallory) as his:
            await hers.send(orjson.dumps(HELLO).decode())
            assert orjson.loads(await hers.recv())["type"] == "ready"
            await his.send(orjson.dumps(HELLO).decode())
            assert "alice has a tunnel" in (await last_word(his))["error"]
            assert len(await rows(keyed, "SELECT FROM triggerkit.open_tunnels")) == 1

    asyncio.run(scenario())


def test_a_tunnel_that_could_not_be_ended_in_the_state_is_not_held_on(
    keyed: Settings, port: int
) -> None:
    """While the same process holds others: nobody would get its messages, and nobody may open
    another one."""

    async def scenario() -> None:
        await declare(keyed, changes("items"), names=("first", "second"))
        async with await connect(keyed.state_dsn, "test") as state:
            await state.execute(
                "CREATE FUNCTION triggerkit.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'not now'; END $$"
            )
            await state.execute(
                "CREATE TRIGGER refuse BEFORE DELETE ON triggerkit.tunnels FOR EACH ROW "
                "EXECUTE FUNCTION triggerkit.refuse()"
            )
        alice, bob = await token_of(keyed, "alice"), await token_of(keyed, "bob")
        async with laptop(port, bob, {"second": 3002}):
            async with laptop(port, alice, {"first": 3001}) as hers:
                assert len(hers.readies) == 1
            held = "SELECT token FROM triggerkit.tunnels ORDER BY token"
            assert await rows(keyed, held) == [("alice",), ("bob",)]
            await rows(
                keyed,
                "UPDATE triggerkit.tunnels SET seen_at = clock_timestamp() - interval '1 h' "
                "RETURNING 1",
            )
            fresh = "SELECT token FROM triggerkit.tunnels WHERE seen_at > now() - interval '1 m'"
            await until_rows(keyed, fresh, [("bob",)])
            async with await connect(keyed.state_dsn, "test") as state:
                await state.execute("DROP TRIGGER refuse ON triggerkit.tunnels")
            async with laptop(port, bob, {"first": 3001}) as his:
                assert len(his.readies) == 1

    asyncio.run(scenario())
