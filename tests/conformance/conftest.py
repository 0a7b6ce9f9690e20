"""Where runs live, and each transport on its real server, RabbitMQ where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import pytest

from tests.conformance.worlds import World, in_memory, on_servers
from tests.rabbitmq import RabbitmqServer
from tests.servers import Background
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.runs.transport.base import AsyncTransport, Source, Transport
from triggerkit.runs.transport.open import open_async_transport, open_transport
from triggerkit.settings import Settings


class RedisServer:
    """A Redis that may be stopped."""

    def __init__(self, folder: Path) -> None:
        self._background = Background()
        self._redis = EmbeddedRedis(folder)
        self._background.run(self._redis.start())

    def settings(self) -> dict[str, str]:
        """What leads to it."""
        return {"REDIS_URL": self._redis.url}

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server is stopped, and started again afterwards."""
        self._background.run(self._redis.stop())
        try:
            yield
        finally:
            self._background.run(self._redis.start())

    def stop(self) -> None:
        """Stop it."""
        self._background.run(self._redis.stop())


@dataclass
class Broker:
    """A server, and transports that lead to it."""

    server: RedisServer | RabbitmqServer
    namespace: str = field(default_factory=lambda: token_hex(8))
    _opened: list[Transport | Source] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Settings that lead to it, and to no other."""
        return Settings.parse(self.server.settings())

    def transport(self, namespace: str | None = None) -> Transport:
        """Another transport."""
        transport = open_transport(self.settings, namespace or self.namespace)
        self._opened.append(transport)
        return transport

    def source(self, *tasks: str) -> Source:
        """Another worker's source."""
        source = self.transport().source(tasks)
        self._opened.append(source)
        return source

    def async_transport(self) -> AsyncTransport:
        """For an event loop, which closes it."""
        return open_async_transport(self.settings, self.namespace)

    def close(self) -> None:
        """Close all of them."""
        for opened in reversed(self._opened):
            opened.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One transport's server after the other."""
    broker = Broker(request.getfixturevalue(f"{request.param}_server"))
    yield broker
    broker.close()


@pytest.fixture(params=["memory", "servers"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Where runs live: in memory, and on the servers."""
    where = (
        in_memory()
        if request.param == "memory"
        else on_servers(request.getfixturevalue("settings"))
    )
    with where as world:
        yield world
