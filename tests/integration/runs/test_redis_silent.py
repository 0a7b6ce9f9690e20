"""A Redis that takes connections and answers nothing: one push at a time waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.faults.rig.proxy import Proxy
from tests.servers import Servers
from triggerkit.runs.run import ReadyRun, new_run_id
from triggerkit.runs.transport.redis import AsyncRedisTransport, RedisTransport

Push = Callable[[], Awaitable[bool]]


@asynccontextmanager
async def _silent() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def _pushing(kind: str, port: int) -> AsyncIterator[Push]:
    url, runs = f"redis://127.0.0.1:{port}/0", [ReadyRun("work", new_run_id(), 1)]
    if kind == "serve":
        portal = AsyncRedisTransport(url, "silent")
        yield lambda: portal.push(runs)
        await portal.close()
    else:
        worker = RedisTransport(url, "silent")
        yield lambda: asyncio.to_thread(worker.push, runs)
        worker.close()


@pytest.mark.parametrize("kind", ["serve", "worker"])
def test_who_pushes_while_it_is_silent_goes_on_and_pushes_again_once_it_answers(
    kind: str, servers: Servers
) -> None:
    socket = Path(unquote(servers.redis.url.removeprefix("unix://")))

    async def scenario() -> None:
        async with (
            _silent() as silent,
            Proxy.before(silent) as proxy,
            _pushing(kind, proxy.port) as push,
        ):
            assert not await push()
            began = time.monotonic()
            assert [await push() for _ in range(20)] == [False] * 20
            # One of them may have looked whether it answers.
            assert time.monotonic() - began < 6
            proxy.lead_to(socket)
            proxy.end_all()
            began = time.monotonic()
            while not await push():
                assert time.monotonic() - began < 10
                await asyncio.to_thread(time.sleep, 0.05)

    asyncio.run(scenario())
