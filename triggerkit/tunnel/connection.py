"""The connection to a server: made, kept alive, and made again when it is lost."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Protocol
from urllib.request import getproxies, proxy_bypass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxy,
    InvalidStatus,
    WebSocketException,
)

from triggerkit.consumers.tunnels.members import TunnelRefused
from triggerkit.delivery.http.network import is_loopback
from triggerkit.errors import CannotConnect
from triggerkit.state.backoff import doubled
from triggerkit.terminal.console import visible
from triggerkit.tunnel.deliveries import Deliveries
from triggerkit.tunnel.line import Line
from triggerkit.tunnel.server import Server
from triggerkit.tunnel.wakefulness import Wakefulness
from triggerkit.tunnel.wire import (
    MAX_MESSAGE_BYTES,
    PING_S,
    PONG_S,
    VERSION,
    Again,
    Hello,
    Malformed,
    Push,
    Ready,
    Refused,
    read_from_server,
    written,
)

#: Seconds before a lost connection is made again: the first wait, the longest, and how long one
#: must have lasted for the waits to begin anew.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
GOOD_S = 10.0

#: Seconds in which a connection must be made, in which the server then must say something, and in
#: which the connection is closed.
CONNECT_S = 15.0
WORD_S = 30.0
CLOSE_S = 5.0

#: Seconds in which what was asked for once more comes.
AGAIN_S = 10.0

#: Seconds that pushes under way have when the command ends.
DRAIN_S = 5.0


class Teller(Protocol):
    """Tells the user how the connection is."""

    def ready(self, ready: Ready, *, is_first: bool, away_s: float) -> None:
        """Say that the tunnels are open."""

    def lost(self, reason: str, wait_s: float) -> None:
        """Say that they are not, and when it is tried again."""


class _Away(Exception):
    """There is no connection now; it is tried again."""


class _Connect(connect):
    """Goes to the server that was given, and to no other: not where an answer sends it."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class TunnelConnection:
    """Runs tunnels until it is canceled, or the server has refused them for good."""

    def __init__(
        self,
        server: Server,
        token: str,
        ports: dict[str, int],
        deliveries: Deliveries,
        teller: Teller,
        *,
        share: bool = False,
    ) -> None:
        self._server = server
        self._token = token
        self._hello = Hello(VERSION, token_hex(12), ports, share)
        self._deliveries = deliveries
        self._teller = teller
        self._socket: ClientConnection | None = None
        self._line: Line | None = None
        self._asked: dict[str, asyncio.Event] = {}
        self._tries = 0
        self._has_run = False
        self._lost_at = monotonic()

    async def run(self) -> None:
        """Keep the tunnels open.

        Raises:
            TunnelRefused: the server does not open them, or ended them for good.
            CannotConnect: no server was there from the beginning.
        """
        while True:
            reason = await self._once()
            if self._socket is not None:
                self._socket, self._lost_at = None, monotonic()
            self._tries += 1
            wait_s = doubled(self._tries, FIRST_WAIT_S, LONGEST_WAIT_S)
            self._teller.lost(reason, wait_s)
            await asyncio.sleep(wait_s)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now."""
        return self._socket is not None

    async def again(self, batch_id: str) -> bool:
        """Ask for what was sent by this id once more; False where it does not come: without a
        connection, or when the server does not have it any more."""
        if self._socket is None:
            return False
        come = self._asked[batch_id] = asyncio.Event()
        try:
            await self._socket.send(written(Again(batch_id)))
            async with asyncio.timeout(AGAIN_S):
                return await come.wait()
        except (ConnectionClosed, TimeoutError):
            return False
        finally:
            self._asked.pop(batch_id, None)

    async def end(self) -> None:
        """Let what is under way end, and close the connection; nothing new is taken."""
        if self._line is not None:
            self._line.is_ending = True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._deliveries.until_done()
                if self._line is not None:
                    await self._line.until_answered()

    async def _once(self) -> str:
        """Have a connection until it is lost; returns why it was."""
        begun = monotonic()
        try:
            async with await self._opened() as socket:
                begun = monotonic()
                return await self._talk(socket)
        except _Away as away:
            return str(away)
        except ConnectionClosed as error:
            return self._closed(error)
        except TimeoutError:
            return "the server says nothing"
        except Malformed as error:
            raise TunnelRefused(
                f"{self._server.authority} says what this command cannot read ({error}): install "
                "the server's release of triggerkit"
            ) from None
        finally:
            if self._socket is not None and monotonic() - begun >= GOOD_S:
                self._tries = 0

    async def _opened(self) -> ClientConnection:
        """Connect.

        Raises:
            _Away: it is to be tried again.
            TunnelRefused: that would be of no use.
            CannotConnect: nor would this, the first time.
        """
        try:
            return await _Connect(
                self._server.tunnel_url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                # A proxy of the environment leads out of this machine.
                proxy=None if is_loopback(self._server.host) else True,
                open_timeout=CONNECT_S,
                close_timeout=CLOSE_S,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
                max_size=MAX_MESSAGE_BYTES,
                user_agent_header="triggerkit",
            )
        except InvalidStatus as error:
            raise self._refused(error) from None
        except ssl.SSLCertVerificationError as error:
            where = self._server.authority
            reason = f"the certificate of {where} is not trusted: {error.verify_message}"
            advice = "name the authority's file in SSL_CERT_FILE"
            raise self._away(reason, f"{reason}; {advice}") from None
        except (ImportError, InvalidProxy, ValueError):
            raise _unusable_proxy(self._server) from None
        except (OSError, WebSocketException) as error:
            raise self._away(_said(error)) from None

    def _refused(self, error: InvalidStatus) -> Exception:
        """Return what answers in the server's place: a balancer whose servers are being started,
        or, at the first try, what will not pass.

        Only a token that is unknown ends tunnels that were open: whatever else answers, such as a
        proxy whose server is just started anew, or the login page of a network, goes by.
        """
        status, where = error.response.status_code, self._server.authority
        if status == 401:
            return TunnelRefused(
                f"{where} does not know the token, or it was revoked; on the server: "
                "triggerkit tunnel tokens add NAME"
            )
        if self._has_run or status >= 500:
            return _Away(f"the server answers {status}")
        if status < 300:
            return self._away(f"it answers {status}")
        if status < 400:
            place = error.response.headers.get("location", "nowhere")
            return TunnelRefused(
                f"{where} sends elsewhere: {visible(place)}; give the address that takes tunnels "
                "as --server"
            )
        if status == 429:
            return TunnelRefused(f"{where} got too many wrong tokens from here; wait for a minute")
        return TunnelRefused(
            f"{where} answers {status}: there is no triggerkit serve that takes tunnels; see "
            "--server"
        )

    def _away(self, reason: str, problem: str | None = None) -> Exception:
        """Return why there is no connection, which at the first try is the end; `problem` says that
        in a sentence."""
        if self._has_run:
            return _Away(reason)
        return CannotConnect(
            problem
            or f"cannot connect to {self._server.authority}{self._by_proxy()}: {reason}; check "
            "that triggerkit serve runs there and that --server is correct"
        )

    def _by_proxy(self) -> str:
        host = self._server.host
        is_direct = is_loopback(host) or not getproxies() or proxy_bypass(host)
        return "" if is_direct else " by the proxy of the environment"

    def _closed(self, error: ConnectionClosed) -> str:
        received = error.rcvd
        if received is not None and received.code == 1012:
            return "the server is restarting"
        return "the connection was lost"

    async def _talk(self, socket: ClientConnection) -> str:
        await socket.send(written(self._hello))
        line = self._line = Line(socket, self._deliveries)
        watch = Wakefulness()
        sleeping = asyncio.create_task(watch.until_slept(), name="sleep")
        reading = asyncio.create_task(self._read(socket, line, watch), name="tunnel")
        try:
            await asyncio.wait({sleeping, reading}, return_when=asyncio.FIRST_COMPLETED)
            if sleeping.done() or watch.slept_s():
                # What comes over it now was given up since.
                socket.transport.abort()
                return "this machine slept"
            return reading.result() or "the server ended it"
        finally:
            sleeping.cancel()
            reading.cancel()
            line.close()
            await asyncio.gather(sleeping, reading, return_exceptions=True)

    async def _read(self, socket: ClientConnection, line: Line, watch: Wakefulness) -> str | None:
        async with asyncio.timeout(WORD_S):
            frame = await socket.recv()
        await self._take(frame, socket, line)
        async for frame in socket:
            if watch.slept_s():
                return None
            await self._take(frame, socket, line)
        return None

    async def _take(self, frame: str | bytes, socket: ClientConnection, line: Line) -> None:
        if isinstance(frame, bytes):
            await line.add(frame)
            return
        match read_from_server(frame):
            case Ready() as ready:
                self._socket = socket
                away_s = monotonic() - self._lost_at
                self._teller.ready(ready, is_first=not self._has_run, away_s=away_s)
                self._has_run = True
            case Refused(error=error):
                raise TunnelRefused(error)
            case Push() as push:
                line.begin(push)
                come = self._asked.get(push.headers.get("webhook-id", "")) if push.again else None
                if come is not None:
                    come.set()


def _unusable_proxy(server: Server) -> CannotConnect:
    # Its address, which may have a password, is not repeated.
    return CannotConnect(
        f"the way to {server.authority} leads through a proxy of the environment (HTTPS_PROXY, "
        "WSS_PROXY, SOCKS_PROXY) that cannot be used: it looks like http://proxy.example.com:3128; "
        "a SOCKS proxy needs `pip install python-socks`. To go without it, set "
        f"NO_PROXY={server.host}"
    )


def _said(error: Exception) -> str:
    """Return what went wrong, without the names that a socket has for it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or "no answer in time"
