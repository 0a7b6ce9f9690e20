"""HTTP/1.1 for strangers: the protocol of uvicorn, with limits that hold before any route does."""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio.events import TimerHandle
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

logger = logging.getLogger(__name__)

#: Largest head of a request, in bytes, and seconds in which it must have come.
MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 10.0

#: Most requests of a connection that wait for the answer to the one before them.
MAX_PIPELINED = 32

#: Seconds in which a client must take something of an answer that waits for it.
WRITE_S = 30.0

#: Seconds after which a WebSocket whose other side takes nothing more is given up, and the option
#: of Linux that says so.
UNTAKEN_S = 60.0
GIVES_UP = getattr(socket, "TCP_USER_TIMEOUT", 0)

#: Most connections at a time. Beyond it the one that takes longest for its head makes room.
MAX_CONNECTIONS = 512


class BoundedProtocol(HttpToolsProtocol):
    """One connection; what exceeds a limit ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room for it or some can be made."""
        super().connection_made(transport)
        self._begin_head()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as its head is small enough."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._begin_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Take the request, if not too many wait already and its head is small enough."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        size_bytes = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
        if self.transport.is_closing():
            return
        if size_bytes > MAX_HEAD_BYTES:
            self._refuse(431)
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body of a request that was taken."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: what follows is the head of the next one."""
        self._in_head = True
        if not self.transport.is_closing():
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the protocol of WebSockets, which has limits of its own, but
        waits for ever to write to a machine that is gone."""
        self._stop_timers()
        # What listens on a Unix socket has no line that could be cut.
        with suppress(OSError):
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, GIVES_UP, int(UNTAKEN_S * 1000))
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Give the client a time in which to take the answer."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client took some."""
        self._stop_write_timer()
        super().resume_writing()

    def _begin_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        # While an answer is being made, the client may be slow with its next request.
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        if not self.transport.is_closing():
            head = b"connection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head)
            self.transport.close()

    def _make_room(self) -> None:
        waiting = (
            other
            for other in self.connections
            if isinstance(other, BoundedProtocol) and other._head_timer is not None
        )
        slowest = min(waiting, key=lambda other: other._due, default=self)
        slowest.transport.abort()

    @property
    def _due(self) -> float:
        return float("inf") if self._head_timer is None else self._head_timer.when()

    def _stop_timers(self) -> None:
        self._stop_head_timer()
        self._stop_write_timer()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
