"""Servers that answer with bytes as the test has them, whatever they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Raw:
    """A server on a port of its own. `heads` are those of the requests that it got."""

    answer: bytes
    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[Raw]:
    """A server that answers so, and closes the connection."""
    made = Raw(answer)
    server = await asyncio.start_server(made._connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def head(status: str, *headers: str) -> bytes:
    """An answer without a body."""
    lines = [f"HTTP/1.1 {status}", "content-length: 0", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()
