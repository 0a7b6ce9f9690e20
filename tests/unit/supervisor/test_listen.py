"""The socket that `serve` listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from triggerkit.supervisor.probes.listening import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_are_sent_at_once_by_asyncio_too(host: str) -> None:
    """Where there is no uvloop, an answer in two writes would wait 40 ms for the other's word."""

    async def scenario() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = writer.get_extra_info("socket")
            told.set_result(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(host, 0)
        async with await asyncio.start_server(accept, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.close()
            return await told

    assert asyncio.run(scenario())
