"""Where commands open tunnels: a WebSocket, by a token."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import psycopg
from psycopg_pool import PoolTimeout
from starlette.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from triggerkit.consumers.endpoints.model import LOCALHOST
from triggerkit.consumers.tunnels.members import TunnelRefused, Wanted
from triggerkit.consumers.tunnels.standing import waiting_of
from triggerkit.consumers.tunnels.tokens import user_of
from triggerkit.runs.client import Client
from triggerkit.tunnel.wire import PATH, VERSION, Hello, Malformed, Opened
from triggerkit.web.throttle import Throttle
from triggerkit.web.tunnel.hub import Hub
from triggerkit.web.tunnel.line import Line, LineLost
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

logger = logging.getLogger(__name__)

#: Seconds in which a command must have said what it wants, and endpoints that it may want at most.
HELLO_S = 10.0
MOST_PORTS = 100

#: Pushes of a command that are sent again at a time.
AGAIN_AT_ONCE = 4

_URLS = "SELECT name, url FROM triggerkit.endpoints WHERE name = ANY (%s)"


class TunnelSite:
    """Takes the WebSockets of the command `tunnel`."""

    def __init__(self) -> None:
        self._hub = Hub()
        self._throttle = Throttle()
        self.route = WebSocketRoute(PATH, self._serve)

    def stop_waiting(self) -> None:
        """End all tunnels, as the process is about to end."""
        self._hub.end_lines()

    async def close(self) -> None:
        """Stop what is under way."""
        await self._hub.stop()

    async def _serve(self, socket: WebSocket) -> None:
        client: Client | None = socket.scope.get(CLIENT_SCOPE_KEY)
        if client is None:
            await _deny(socket, JSONResponse({"error": "the server is starting"}, 503))
            return
        try:
            user = await self._user(socket, client)
        except (psycopg.Error, PoolTimeout):
            await _deny(socket, JSONResponse({"error": "the state database is away"}, 503))
            return
        if user is not None:
            await socket.accept()
            await self._talk(client, user, Line(socket))

    async def _user(self, socket: WebSocket, client: Client) -> str | None:
        """Return whose token the request has; None when it was answered that it has none."""
        address = "" if socket.client is None else socket.client.host
        scheme, _, token = socket.headers.get("authorization", "").partition(" ")
        user = None
        # A page of a browser, which has an origin, cannot know a token.
        if scheme.lower() == "bearer" and "origin" not in socket.headers:
            async with client.pool.connection() as state:
                user = await user_of(state, token.strip())
        # Others behind the same address, which may be a proxy's, go on: nobody guesses a token.
        if user is None:
            await self._turn_away(socket, address)
        return user

    async def _turn_away(self, socket: WebSocket, address: str) -> None:
        if (wait_s := self._throttle.wait_s(address)) > 0:
            answer = JSONResponse({"error": f"too many wrong tokens; try again in {wait_s} s"}, 429)
            answer.headers["retry-after"] = str(wait_s)
        else:
            self._throttle.note_wrong(address)
            answer = JSONResponse({"error": "Unauthorized"}, 401)
            answer.headers["www-authenticate"] = "Bearer"
        await _deny(socket, answer)

    async def _talk(self, client: Client, user: str, line: Line) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await line.hello()
            wanted = _wanted(user, hello)
            tunnels = await self._hub.open(client, wanted, line)
        except TunnelRefused as error:
            await line.refuse(str(error))
            return
        except Malformed as error:
            await line.refuse(f"the command says what this server cannot read: {error}")
            return
        except (TimeoutError, LineLost, psycopg.Error, PoolTimeout):
            # It comes again: a line may be slow, and a laptop may fall asleep at any moment.
            await line.close(1011)
            return
        try:
            await line.welcome(user, await _opened(client, wanted))
            logger.info("%s opened a tunnel to %s", user, ", ".join(wanted.ports))
            await self._while_open(client, line)
        except Malformed as error:
            await line.refuse(f"the command says what this server cannot read: {error}")
        except (LineLost, psycopg.Error, PoolTimeout):
            await line.close(1011)
        finally:
            await self._hub.close(client, tunnels)
            logger.info("the tunnel of %s to %s is closed", user, ", ".join(wanted.ports))

    async def _while_open(self, client: Client, line: Line) -> None:
        async def send_again() -> None:
            while True:
                await self._hub.send_again(client, line, await line.asked_again.get())

        again = [asyncio.create_task(send_again(), name="send again") for _ in range(AGAIN_AT_ONCE)]
        try:
            await line.read()
        finally:
            for task in again:
                task.cancel()


def _wanted(user: str, hello: Hello) -> Wanted:
    """Return what a command asks for.

    Raises:
        TunnelRefused: it is of another version, or asks for nothing, or too much.
    """
    if hello.version != VERSION:
        raise TunnelRefused(
            f"the server knows version {VERSION} of tunnels, and the command speaks version "
            f"{hello.version}: install the server's release of triggerkit"
        )
    ports = hello.ports.values()
    if not 1 <= len(ports) <= MOST_PORTS or not all(1 <= port <= 65535 for port in ports):
        raise TunnelRefused(f"give 1 to {MOST_PORTS} ports: --ports=3001:local_endpoint")
    if not 1 <= len(hello.instance) <= MOST_PORTS or not hello.instance.isalnum():
        raise TunnelRefused("the command does not say which it is")
    return Wanted(user, hello.instance, hello.ports, hello.share)


async def _opened(client: Client, wanted: Wanted) -> list[Opened]:
    async with client.pool.connection() as state:
        cursor = await state.execute(_URLS, [list(wanted.ports)])
        urls: dict[str, str] = dict(await cursor.fetchall())
        waiting = await waiting_of(state)
    return [
        Opened(name, urls[name].removeprefix(LOCALHOST), waiting.get(name, 0))
        for name in wanted.ports
        if name in urls
    ]


async def _deny(socket: WebSocket, answer: Response) -> None:
    with suppress(RuntimeError):
        await socket.send_denial_response(answer)
