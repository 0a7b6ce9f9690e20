"""Commands that say what none says: each is refused in words, and the others go on."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.pipeline import execute
from tests.integration.tunnel.world import (
    ENDPOINT,
    declare,
    laptop,
    names,
    port_of,
    rows,
    streaming,
    token_of,
    until_rows,
)
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.tunnel.wire import ENDED, PATH
from triggerkit.web.tunnel import site as site_module

HELLO = {"type": "hello", "version": 1, "instance": "abc", "ports": {ENDPOINT: 3001}}


def opened(port: int, token: str, **headers: str) -> connect:
    given = {"Authorization": f"Bearer {token}", **headers}
    return connect(f"ws://127.0.0.1:{port}{PATH}", additional_headers=given, proxy=None)


async def last_word(socket: ClientConnection) -> dict[str, Any]:
    """What is said before the end."""
    said: dict[str, Any] = {}
    try:
        async with asyncio.timeout(15):
            while True:
                said = orjson.loads(await socket.recv())
    except ConnectionClosed:
        return said


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (["{"], "cannot read"),
        ([b"\x00" * 20], "cannot read"),
        (['{"type": "again", "batch_id": "x"}'], "cannot read"),
        ([{**HELLO, "version": 2}], "version 1 of tunnels"),
        ([{**HELLO, "ports": {}}], "1 to 100 ports"),
        ([{**HELLO, "ports": {ENDPOINT: 0}}], "1 to 100 ports"),
        ([{**HELLO, "ports": {str(n): 1 for n in range(101)}}], "1 to 100 ports"),
        ([{**HELLO, "instance": ""}], "does not say which it is"),
        ([HELLO, HELLO], "cannot read"),
        ([HELLO, "[" * 100_000], "cannot read"),
        ([HELLO, b"\x00" * 20], "cannot read"),
        ([HELLO, {"type": "reply", "number": 7, "status": 200, "headers": {}, "size": 0}], "read"),
        (
            [HELLO, {"type": "reply", "number": 0, "status": 200, "headers": {}, "size": 1 << 40}],
            "cannot read",
        ),
        ([HELLO, {"type": "reply", "number": -1, "status": 200, "headers": {}, "size": 9}], "read"),
        ([HELLO, (1).to_bytes(8) + b"of no push"], "cannot read"),
    ],
)
def test_what_cannot_be_read_ends_the_line_with_a_sentence(
    keyed: Settings, port: int, frames: list[Any], problem: str
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "mallory")
        async with opened(port, token) as socket:
            for frame in frames:
                is_raw = isinstance(frame, bytes | str)
                await socket.send(frame if is_raw else orjson.dumps(frame).decode())
            word = await last_word(socket)
        assert word["type"] == "refused"
        assert problem in word["error"]
        await until_rows(keyed, "SELECT count(*) FROM triggerkit.tunnels", [(0,)])

    asyncio.run(scenario())


def test_who_says_nothing_for_long_may_come_again(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop may fall asleep at any moment, and a line be slow."""
    monkeypatch.setattr(site_module, "HELLO_S", 0.2)

    async def scenario() -> None:
        async with opened(port, await token_of(keyed, "alice")) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code not in (ENDED, 1000)

    asyncio.run(scenario())


def test_a_page_of_a_browser_opens_none(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        token = await token_of(keyed, "alice")
        with pytest.raises(InvalidStatus) as refused:
            async with opened(port, token, Origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 401

    asyncio.run(scenario())


def test_an_answer_with_what_no_column_stores_is_an_answer(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "mallory")
        async with streaming(keyed):
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            async with opened(port, token) as socket:
                await socket.send(orjson.dumps(HELLO).decode())
                while True:
                    said = await socket.recv()
                    if isinstance(said, str) and orjson.loads(said)["type"] == "push":
                        break
                answer = {
                    "type": "unanswered", "number": orjson.loads(said)["number"],
                    "error": "a\x00b" + "x" * 5000, "status": 10**15,
                }  # fmt: skip
                await socket.send(orjson.dumps(answer).decode())
                await until_rows(keyed, "SELECT count(*) FROM triggerkit.deliveries", [(1,)])
            [(status, error)] = await rows(
                keyed, "SELECT status, error FROM triggerkit.deliveries LIMIT 1"
            )
            assert status is None
            assert error == ("a b" + "x" * 500)[:500]
            async with (
                Receiver.start() as app,
                laptop(port, await token_of(keyed, "alice"), {ENDPOINT: port_of(app)}),
            ):
                await app.until(lambda: names(app) == ["x"])

    asyncio.run(scenario())
