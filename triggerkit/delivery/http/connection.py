"""One HTTP/1.1 connection: a request at a time, its answer parsed by httptools."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import httptools

#: More of an answer than this is not read.
MAX_ANSWER_BYTES = 1024 * 1024

#: Of an answer that never ends, chunks' lengths and trailers included, no more than this is read.
MAX_READ_BYTES = 4 * MAX_ANSWER_BYTES

#: An answer whose head is larger than this is refused.
MAX_HEAD_BYTES = 64 * 1024


#: The option of a socket by which its end sends nothing more (struct linger).
_AT_ONCE = struct.pack("ii", 1, 0)


class HttpError(Exception):
    """No complete answer came. `was_sent` says whether the endpoint may have the request."""

    was_sent = True


class CannotReach(HttpError):
    """No connection was made, so nothing was sent."""

    was_sent = False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Header names are lower-case; of a body that is larger than `MAX_ANSWER_BYTES`
    there is only the beginning, and it `is_cut`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False


class Connection(asyncio.Protocol):
    """One connection, from its making to its end."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._loop = asyncio.get_running_loop()
        self.idle_since = 0.0
        self._reset()

    @property
    def is_open(self) -> bool:
        """Return whether another request may be sent over it."""
        return self._transport is not None and not self._transport.is_closing()

    async def request(self, message: bytes) -> Response:
        """Send `message`, a whole request, and wait for its answer."""
        if not self.is_open:
            raise HttpError("the endpoint closed the connection")
        self._reset()
        self._answer = self._loop.create_future()
        cast("asyncio.Transport", self._transport).write(message)
        try:
            return await self._answer
        except BaseException:
            self._drop()
            raise
        finally:
            self._answer = None
            self.idle_since = self._loop.time()

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _drop(self) -> None:
        """End the connection, and drop what the system has not sent yet.

        Once a line that was cut is mended, it would arrive after what was sent instead of it.
        """
        if self._transport is not None:
            line = self._transport.get_extra_info("socket")
            with suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nobody asked for it: what follows could not be told from the next answer.
            self.close()
            return
        self._has_begun = True
        self._read_bytes += len(data)
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(HttpError(f"the answer is not HTTP/1.1: {error}"))
        if not self._has_head and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(HttpError(f"the answer's head is larger than {MAX_HEAD_BYTES} bytes"))
        if self._read_bytes > MAX_READ_BYTES:
            self._complete(is_cut=True)
            self.close()

    def eof_received(self) -> bool:
        if self._has_head and self._ends_with_connection:
            self._complete()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        reason = f": {error}" if error else ""
        if self._has_begun:
            self._fail(HttpError(f"the connection ended in the midst of the answer{reason}"))
        else:
            self._fail(HttpError(f"the connection ended before an answer came{reason}"))
        self._transport = None

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind the body is no header: it would change what was answered.
        if not self._has_head:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._has_head = True
        self._ends_with_connection = (
            "content-length" not in self._headers and "transfer-encoding" not in self._headers
        )

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_ANSWER_BYTES:
            self._complete(is_cut=True)
            self.close()

    def on_message_complete(self) -> None:
        # Answers of the hundreds announce the one that is meant.
        if self._has_head:
            self._complete()
            if not self._parser.should_keep_alive():
                self.close()

    def _reset(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._head_bytes = self._read_bytes = 0
        self._has_begun = self._has_head = self._ends_with_connection = False

    def _complete(self, *, is_cut: bool = False) -> None:
        if self._answer is not None and not self._answer.done():
            body = bytes(self._body[:MAX_ANSWER_BYTES])
            status = self._parser.get_status_code()
            self._answer.set_result(Response(status, self._headers, body, is_cut))

    def _fail(self, error: HttpError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()
