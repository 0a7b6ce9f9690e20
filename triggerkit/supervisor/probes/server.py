"""Answer `/healthz` and `/readyz` of a process, on a port and a thread of its own.

A thread of its own, since an event loop that is stuck could not say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading

import orjson

from triggerkit.settings import Settings
from triggerkit.state.threads import LastingThread
from triggerkit.supervisor.logs import is_child
from triggerkit.supervisor.probes.listening import listen
from triggerkit.supervisor.probes.process_health import ProcessHealth

logger = logging.getLogger(__name__)

#: Seconds that a request may take, with its answer.
REQUEST_S = 5.0

#: Bytes of a request's head, and requests at once: whoever probes needs no more.
MOST_HEAD_BYTES = 8192
MOST_AT_ONCE = 32

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def serve_probes(settings: Settings, health: ProcessHealth) -> None:
    """Answer probes for as long as the process lives, if a port is set. The processes of `dev`,
    which share their settings, have none.

    Raises:
        PreflightFailed: the port is in use.
    """
    port = settings.triggerkit_health_port
    if port is None or is_child():
        return
    listener = listen(settings.triggerkit_health_host, port, "TRIGGERKIT_HEALTH_PORT")
    listener.set_inheritable(False)
    host, port = listener.getsockname()[:2]
    logger.info("answering /healthz and /readyz on %s:%d", host, port)
    start_probes(listener, health)


def start_probes(listener: socket.socket, health: ProcessHealth) -> threading.Thread:
    """Answer probes on `listener`, in a thread that ends with the process."""
    probes = _Probes(health)
    # A copy each time: what a server was made of is closed with it.
    thread = LastingThread(lambda: asyncio.run(probes.serve(listener.dup())), "probes", daemon=True)
    thread.start()
    return thread


class _Probes:
    def __init__(self, health: ProcessHealth) -> None:
        self._health = health
        self._count = 0

    async def serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listener, limit=MOST_HEAD_BYTES)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        gone = (OSError, TimeoutError, asyncio.IncompleteReadError)
        try:
            if self._count <= MOST_AT_ONCE:
                with contextlib.suppress(*gone):
                    async with asyncio.timeout(REQUEST_S):
                        await self._answer(reader, writer)
        finally:
            self._count -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        status, content = self._content(method, rest.partition(b" ")[0].partition(b"?")[0])
        body = orjson.dumps(content)
        lines = [
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Service Unavailable')}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            "connection: close",
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        if method != b"HEAD":
            writer.write(body)
        await writer.drain()

    def _content(self, method: bytes, path: bytes) -> tuple[int, dict[str, object]]:
        if not path:
            return 400, {"error": "this is no request of HTTP"}
        if path not in (b"/healthz", b"/readyz"):
            return 404, {"error": "there are /healthz and /readyz"}
        if method not in (b"GET", b"HEAD"):
            return 405, {"error": "the methods of this path are GET and HEAD"}
        if path == b"/healthz":
            stuck = self._health.stuck()
            content: dict[str, object] = {"alive": not stuck}
            return (503, {**content, "stuck": stuck}) if stuck else (200, content)
        missing = self._health.missing()
        content = {"ready": not missing, "missing": missing}
        if self._health.role is not None:
            content["role"] = self._health.role
        return 503 if missing else 200, content
