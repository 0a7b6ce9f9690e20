"""The Redis that `triggerkit dev` brings along: a real server that appends every change to a file.

It listens on a Unix socket in a folder that other users cannot enter, so it needs no password.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis.asyncio
from redis.exceptions import RedisError

from triggerkit.embedded.folders import lock_home, private_folder, server_home, socket_folder
from triggerkit.embedded.process import GuardedProcess, Program
from triggerkit.embedded.programs import redis_program
from triggerkit.errors import AlreadyRunning, CannotConnect

#: How long a start may take, reading the log of changes included, in seconds.
START_TIMEOUT_S = 60.0

_SOCKET_NAME: Final = "redis.sock"
_CONFIGURATION = """\
# Written by triggerkit at every start.
port 0
unixsocket {socket}
unixsocketperm 700
dir {data}
daemonize no
logfile ""
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
"""


class EmbeddedRedis:
    """A Redis whose data live in `<state_dir>/redis` and whose log in `<state_dir>/log`.

    It ends within 5 s of this process, however that ends. Killed, it loses nothing; a power
    failure may cost the last second. One object starts one server at a time and belongs to one
    event loop.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir.absolute()
        self._log = self._state_dir / "log" / "redis.log"
        self._server: GuardedProcess | None = None
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """The URL of the server, known once started.

        Raises:
            CannotConnect: not started yet.
        """
        if self._socket is None:
            raise CannotConnect("the embedded Redis has not been started")
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it is not running."""
        return self._server.pid if self._server is not None and self._server.running else None

    async def start(self) -> None:
        """Start the server and return once it has loaded its data and answers.

        Raises:
            AlreadyRunning: a server runs on these data and did not go within 5 s.
            CannotConnect: it did not start; the message ends with its last log lines.
            ConfigurationError: a folder or the program is missing.
        """
        if self.pid is not None:
            raise AlreadyRunning("this embedded Redis was already started")
        home = await asyncio.to_thread(server_home, self._state_dir, "redis", None)
        lock_fd = await lock_home(home, "Redis")
        try:
            self._socket = socket_folder(home, _SOCKET_NAME, None) / _SOCKET_NAME
            configuration = _write_configuration(home, self._socket)
            self._server = await GuardedProcess.start(self._program(configuration), [lock_fd])
            await self._server.until_ready(self._answers, START_TIMEOUT_S)
        except BaseException:
            await self.stop(force=True)
            raise
        finally:
            os.close(lock_fd)

    async def stop(self, *, force: bool = False) -> None:
        """Stop with everything written, forced after ten seconds or, with `force`, at once."""
        if self._server is not None:
            await self._server.stop(force=force)

    async def wait(self) -> int:
        """Wait until the server ends, asked to or not; returns its exit code.

        Raises:
            CannotConnect: not started yet.
        """
        if self._server is None:
            raise CannotConnect("the embedded Redis has not been started")
        return await self._server.wait()

    def _program(self, configuration: Path) -> Program:
        return Program(
            name="Redis",
            command=[redis_program(), configuration],
            log=self._log,
            stop_signal=signal.SIGTERM,
            force_signal=signal.SIGINT,
        )

    async def _answers(self) -> bool:
        async with redis.asyncio.Redis.from_url(self.url, retry=None) as client:
            try:
                return bool(await client.ping())
            except RedisError:
                return False


def _write_configuration(home: Path, socket: Path) -> Path:
    """Write the server's configuration file and return its path."""
    data = private_folder(home / "data", None)
    text = _CONFIGURATION.format(socket=_quote(socket), data=_quote(data))
    target = home / "redis.conf"
    target.write_text(text, encoding="utf-8")
    return target


def _quote(path: Path) -> str:
    """Return a quoted value of a Redis configuration file."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
