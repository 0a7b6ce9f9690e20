"""An endpoint that takes whatever is posted: `python -m bench.receiver PORT`.

It does as little as an HTTP server can, since it shares the machine with what is measured.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Taker(asyncio.Protocol):
    """Answers each request once all of its body has come, and keeps nothing of it."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; one follows another only after its answer."""
        if not self._left:
            self._head += data
            head, end, body = self._head.partition(_END)
            if not end:
                return
            lines = head.lower().split(b"\r\n")
            length = next(line for line in lines if line.startswith(_LENGTH))
            self._left = int(length[len(_LENGTH) :]) - len(body)
            self._head = b""
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._left = 0
            self._transport.write(_ANSWER)


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Taker, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
