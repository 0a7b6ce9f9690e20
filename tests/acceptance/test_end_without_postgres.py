"""Processes that are asked to end while Postgres answers nothing: they end, too."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.running_system import System
from tests.faults.rig.proxy import Proxy
from triggerkit.settings import Settings

GRACE_S = 2

#: What comes on top at most, on a busy machine: connections are closed, and given up.
MORE_S = 20


class Way:
    """The way to the server, in a thread; once blocked, nothing comes through nor is refused."""

    def __init__(self, dsn: str) -> None:
        self.dsn = ""
        self._direct = dsn
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._ended = asyncio.Event()
        self._hole = socket.create_server(("127.0.0.1", 0), backlog=500)
        self._proxy: Proxy
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])
        self._thread.start()
        assert self._ready.wait(20)

    async def _run(self) -> None:
        async with Proxy.start(self._direct) as self._proxy:
            self.dsn = self._proxy.dsn(self._direct)
            self._ready.set()
            await self._ended.wait()

    def block(self) -> None:
        """Have a server that takes connections and answers nothing."""
        self._loop.call_soon_threadsafe(self._proxy.lead_to, self._hole.getsockname()[1])
        self._loop.call_soon_threadsafe(self._proxy.cut)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)
        self._loop.close()
        self._hole.close()


@pytest.fixture
def way(settings: Settings) -> Iterator[Way]:
    way = Way(settings.state_dsn)
    yield way
    way.close()


@pytest.mark.timeout(240)
def test_each_ends_though_postgres_answers_nothing(
    tmp_path: Path, settings: Settings, way: Way
) -> None:
    state = {"TRIGGERKIT_STATE_URL": way.dsn, "TRIGGERKIT_GRACE": f"{GRACE_S}s"}
    system = System(tmp_path, {**settings.environment(), **state})
    try:
        assert system.command("apply").returncode == 0
        for name in ("serve", "worker", "stream"):
            system.start(name)
        key = system.insert("x")
        eventually(lambda: system.has_effect(key), 40, "its effect")
        way.block()
        asked_at = time.monotonic()
        for process in system.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in system.processes.values():
            process.wait(max(1.0, asked_at + GRACE_S + MORE_S - time.monotonic()))
        assert [process.returncode for process in system.processes.values()] == [0, 0, 0]
    finally:
        system.stop_all()
