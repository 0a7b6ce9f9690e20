"""Tunnels as they are used: an application that serves, a stream, and commands on laptops."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.pipeline import execute, run_until_canceled
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, Declared, DeclaredEndpoint
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.tunnels.tokens import add_token
from triggerkit.encryption import Keyring
from triggerkit.settings import Settings
from triggerkit.signature import new_secret
from triggerkit.state.connect import connect
from triggerkit.tunnel.connection import TunnelConnection
from triggerkit.tunnel.deliveries import Deliveries, Delivery
from triggerkit.tunnel.port import Ports
from triggerkit.tunnel.server import Server
from triggerkit.tunnel.wire import Ready

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"

ENDPOINT = "local_endpoint"

#: What the endpoint's pushes carry.
BEARER, SIGNING = "Bearer the app's own secret", new_secret()


def with_key(settings: Settings) -> Settings:
    """Settings by which secrets of endpoints can be stored."""
    key = base64.b64encode(b"k" * 32).decode()
    return Settings.parse({**settings.environment(), "TRIGGERKIT_ENCRYPTION_KEY": key})


async def declare(
    settings: Settings,
    definition: ConsumerDefinition,
    *setup: str,
    names: tuple[str, ...] = (ENDPOINT,),
) -> None:
    """Make a local endpoint of each name, and a consumer of its own that pushes there."""
    await execute(settings, *(setup or (TABLE,)))
    endpoints = [
        DeclaredEndpoint(
            name, "/push", {"Authorization": BEARER, "X-Endpoint": name}, SIGNING, local=True
        )
        for name in names
    ]
    consumers = [
        Declared(f"to_{name}", definition.model_copy(update={"endpoint": name}), managed_by="file")
        for name in names
    ]
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        keyring = Keyring(settings.encryption_keys)
        declarations = Declarations(consumers, endpoints)
        await apply(source, state, declarations, settings.public_url, keyring=keyring)


async def token_of(settings: Settings, user: str) -> str:
    """A new token."""
    async with await connect(settings.state_dsn, "test") as state:
        return await add_token(state, user, "test")


@dataclass
class Laptop:
    """A command that runs, and what it told."""

    connection: TunnelConnection
    running: asyncio.Task[None]
    readies: list[Ready] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    def ready(self, ready: Ready, *, is_first: bool, away_s: float) -> None:
        self.readies.append(ready)
        self._told.set()

    def lost(self, reason: str, wait_s: float) -> None:
        self.losses.append(reason)
        self._told.set()

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._told.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until `condition` holds after something was told."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._told.clear()
                told = asyncio.create_task(self._told.wait())
                await asyncio.wait({told, self.running}, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                if self.running.done() and not condition():
                    self.running.result()

    async def ended(self) -> str:
        """Wait for its end by an error, and return what that says."""
        async with asyncio.timeout(20):
            await asyncio.wait({self.running})
        return str(self.running.exception())


@asynccontextmanager
async def laptop(
    port: int, token: str, ports: dict[str, int], *, share: bool = False, url: str | None = None
) -> AsyncIterator[Laptop]:
    """A command that opens tunnels at the server on `port`, once it was told that they are open, or
    has ended."""
    made: list[Laptop] = []
    deliveries = Deliveries(Ports(ports), lambda delivery: made[0].delivered(delivery))
    server = Server.parse(url or f"ws://127.0.0.1:{port}")

    class Teller:
        def ready(self, ready: Ready, *, is_first: bool, away_s: float) -> None:
            made[0].ready(ready, is_first=is_first, away_s=away_s)

        def lost(self, reason: str, wait_s: float) -> None:
            made[0].lost(reason, wait_s)

    connection = TunnelConnection(server, token, ports, deliveries, Teller(), share=share)
    running = asyncio.create_task(connection.run())
    laptop = Laptop(connection, running)
    made.append(laptop)
    try:
        async with asyncio.timeout(20):
            while not laptop.readies and not running.done():
                await asyncio.wait({running}, timeout=0.02)
        yield laptop
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await deliveries.close()


def port_of(receiver: Receiver) -> int:
    """The port that a receiver listens on."""
    return int(receiver.url.rpartition(":")[2])


def names(receiver: Receiver) -> list[str]:
    """The names of the rows that it got, in order."""
    return [message["record"]["name"] for message in receiver.messages]


async def rows(settings: Settings, query: str, *parameters: Any) -> list[Any]:
    """What the state answers."""
    async with await connect(settings.state_dsn, "test") as state:
        cursor = await state.execute(query.encode(), parameters)
        return await cursor.fetchall()


streaming = run_until_canceled


async def until(look: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait until `look` answers yes."""
    async with asyncio.timeout(timeout_s):
        while True:
            if look():
                return
            await asyncio.sleep(0.02)


async def until_rows(settings: Settings, query: str, found: list[Any]) -> None:
    """Wait until the state answers so."""
    async with asyncio.timeout(20):
        while True:
            if await rows(settings, query) == found:
                return
            await asyncio.sleep(0.05)


def versions(receiver: Receiver) -> dict[int, list[int]]:
    """The versions of each row in the order it got them, a name being a version."""
    found: dict[int, list[int]] = {}
    for message in receiver.messages:
        record = message["record"]
        found.setdefault(record["id"], []).append(int(record["name"]))
    return found


def in_order(receiver: Receiver) -> bool:
    """Whether no row's earlier version came behind a later one, repeats of a batch left out."""
    seen: set[str] = set()
    last: dict[int, int] = {}
    for request in receiver.requests:
        if request.batch_id in seen:
            continue
        seen.add(request.batch_id)
        for message in request.messages:
            key, version = message["record"]["id"], int(message["record"]["name"])
            if version <= last.get(key, -1):
                return False
            last[key] = version
    return True
