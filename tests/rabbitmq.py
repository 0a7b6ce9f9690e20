"""A RabbitMQ of the tests' own: on the loopback address, with its own data, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.servers import Background
from triggerkit.embedded.process import GuardedProcess, Program
from triggerkit.runs.transport.rabbitmq.broker import AWAY, IdBroker

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_START_TIMEOUT_S = 90.0


class RabbitmqServer:
    """One server, which keeps its data and its port over restarts. It ends with this process."""

    def __init__(self) -> None:
        self._background = Background()
        self._home = Path(tempfile.mkdtemp(prefix="triggerkit-rabbitmq-"))
        self._port, self._distribution_port, self._mapper_port = (free_port() for _ in range(3))
        self._process: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def settings(self) -> dict[str, str]:
        """What leads to it."""
        return {"TRIGGERKIT_BROKER_URL": self.url}

    def start(self) -> None:
        """Start, and return once it answers."""
        (self._home / "plugins").write_text("[].\n")
        (self._home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\n")
        self._background.run(self._start())

    def stop(self, *, force: bool = False) -> None:
        """Stop in order, or with `force` kill it."""
        if self._process is not None:
            self._background.run(self._process.stop(force=force))
            self._process = None

    def remove(self) -> None:
        """Stop, and remove the data."""
        self.stop(force=True)
        shutil.rmtree(self._home, ignore_errors=True)

    @contextmanager
    def away(self, *, force: bool = False) -> Iterator[None]:
        """The server is stopped, and started again afterwards."""
        self.stop(force=force)
        try:
            yield
        finally:
            self.start()

    def lose_data(self) -> None:
        """Kill it, and start it as if it were new."""
        self.stop(force=True)
        shutil.rmtree(self._home / "data")
        self.start()

    async def _start(self) -> None:
        self._process = await GuardedProcess.start(self._program())
        await self._process.until_ready(self._answers, _START_TIMEOUT_S)

    async def _answers(self) -> bool:
        return await asyncio.to_thread(self._is_there)

    def _is_there(self) -> bool:
        broker = IdBroker(self.url)
        try:
            return bool(broker.connection.is_open)
        except AWAY:
            return False
        finally:
            broker.close()

    def _program(self) -> Program:
        settings = {
            "PATH": os.defpath,
            "HOME": self._home,
            "RABBITMQ_NODENAME": f"triggerkit-{self._port}@localhost",
            "RABBITMQ_MNESIA_BASE": self._home / "data",
            "RABBITMQ_LOG_BASE": self._home / "logs",
            "RABBITMQ_CONFIG_FILE": self._home / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._home / "plugins",
            "RABBITMQ_DIST_PORT": self._distribution_port,
            "ERL_EPMD_PORT": self._mapper_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # Has the script become the server, instead of waiting for it.
            "RABBITMQ_ALLOW_INPUT": 1,
        }
        given = [f"{name}={value}" for name, value in settings.items()]
        return Program(
            name="RabbitMQ",
            command=["/usr/bin/env", "-i", *given, _PROGRAM],
            log=self._home / "log",
            stop_signal=signal.SIGTERM,
            force_signal=signal.SIGKILL,
        )


def running_rabbitmq() -> Iterator[RabbitmqServer]:
    """A started server; the test is skipped where the program is missing."""
    if not _PROGRAM.exists():
        missing = f"{_PROGRAM} is missing: install Debian's rabbitmq-server"
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(missing)
        pytest.skip(missing)
    server = RabbitmqServer()
    server.start()
    yield server
    server.remove()
