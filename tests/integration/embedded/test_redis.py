"""The embedded Redis: starts fast, keeps every change, lets nobody else in, and says why not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.errors import AlreadyRunning, CannotConnect

SECOND_START_S = 2.0


def log_of_changes(state_dir: Path) -> Path:
    """The file that changes are appended to; from Redis 7 on it is one of several in a folder."""
    data = state_dir / "redis" / "data"
    return next(data.glob("appendonlydir/*.incr.aof"), data / "appendonly.aof")


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(state_dir)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as connected:
        yield connected


def test_data_survive_a_restart_and_the_second_start_is_fast(tmp_path: Path) -> None:
    async def scenario() -> None:
        start = time.monotonic()
        async with running(tmp_path) as server, client(server) as redis:
            print(f"first start {time.monotonic() - start:.3f} s")
            await redis.rpush("queue", "run_1", "run_2")
        start = time.monotonic()
        async with running(tmp_path) as server, client(server) as redis:
            second_s = time.monotonic() - start
            print(f"second start {second_s:.3f} s")
            assert await redis.lrange("queue", 0, -1) == [b"run_1", b"run_2"]
        assert second_s < SECOND_START_S

    asyncio.run(scenario())


def test_it_listens_nowhere_else_and_never_evicts(tmp_path: Path) -> None:
    expected = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "save": "",
    }

    async def scenario() -> None:
        async with running(tmp_path) as server, client(server) as redis:
            for name, value in expected.items():
                assert await redis.config_get(name) == {name: value}

    asyncio.run(scenario())


def test_no_other_user_can_enter_the_folders_of_data_and_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path):
            for folder in ("redis", "redis/data", "redis/socket"):
                assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700

    asyncio.run(scenario())


def test_a_killed_server_is_noticed_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as server:
            async with client(server) as redis:
                await redis.set("key", "kept")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            assert await server.wait() == 128 + signal.SIGKILL
            assert server.pid is None
            await server.start()
            async with client(server) as redis:
                assert await redis.get("key") == b"kept"

    asyncio.run(scenario())


def test_a_log_of_changes_cut_in_the_middle_of_one_loads_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as server, client(server) as redis:
            await redis.set("first", "kept")
            await redis.set("second", "cut")
        log = log_of_changes(tmp_path)
        os.truncate(log, log.stat().st_size - 3)
        async with running(tmp_path) as server, client(server) as redis:
            assert await redis.mget("first", "second") == [b"kept", None]

    asyncio.run(scenario())


def test_a_failed_start_tells_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = log_of_changes(tmp_path)
    log.parent.mkdir(parents=True)
    log.parent.chmod(0o700)
    log.write_text("this is no log of changes")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(CannotConnect, match="Bad file format reading the append only file"):
        asyncio.run(server.start())
    assert server.pid is None


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as server:
            with pytest.raises(AlreadyRunning, match="Redis"):
                await EmbeddedRedis(tmp_path).start()
            with pytest.raises(AlreadyRunning, match="already started"):
                await server.start()

    asyncio.run(scenario())


def test_a_left_over_socket_does_not_disturb(tmp_path: Path) -> None:
    socket = tmp_path / "redis" / "socket" / "redis.sock"
    socket.parent.mkdir(parents=True)
    socket.parent.chmod(0o700)
    socket.touch()

    async def scenario() -> None:
        async with running(tmp_path) as server, client(server) as redis:
            assert await redis.ping()

    asyncio.run(scenario())


@pytest.mark.parametrize("folder", ["a b%2F'\"#?", "long" * 30])
def test_any_path_is_served(tmp_path: Path, folder: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path / folder) as server, client(server) as redis:
            await redis.set("key", "value")
            [socket] = (await redis.config_get("unixsocket")).values()
        assert log_of_changes(tmp_path / folder).exists()
        if len(folder) > 100:
            shutil.rmtree(Path(str(socket)).parent)

    asyncio.run(scenario())


def test_the_url_is_known_only_once_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        with pytest.raises(CannotConnect, match="not been started"):
            await server.wait()
        with pytest.raises(CannotConnect, match="not been started"):
            _ = server.url
        await server.stop()

    asyncio.run(scenario())
