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
from triggerkit.embedded.server import EmbeddedServer

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


class EmbeddedRedis(EmbeddedServer):
    """A Redis. Killed, it loses nothing; a power failure may cost the last second."""

    NAME = "Redis"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """The URL of the server, known once started.

        Raises:
            CannotConnect: not started yet.
        """
        if self._socket is None:
            raise self._not_started()
        return f"unix://{quote(str(self._socket))}"

    async def start(self) -> None:
        """Start the server and return once it has loaded its data and answers.

        Raises:
            AlreadyRunning: a server runs on these data and did not go within 5 s.
            CannotConnect: it did not start; the message ends with its last log lines.
            ConfigurationError: a folder or the program is missing.
        """
        self._require_stopped()
        home = await asyncio.to_thread(server_home, self._state_dir, "redis", None)
        lock_fd = await lock_home(home, self.NAME)
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

    def _program(self, configuration: Path) -> Program:
        return Program(
            name=self.NAME,
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
