"""A proxy before `serve`, which answers 502 while nothing answers behind it."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 11\r\n"
    b"connection: close\r\n\r\nBad Gateway"
)


class Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a port of this machine; counts those that it could not."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passed)
        self.behind = port
        self.refused = 0

    @property
    def url(self) -> str:
        """Its dashboard's URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/dashboard"


class _Passed(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        """Pass one connection on, in both directions."""
        try:
            behind = socket.create_connection(("127.0.0.1", self.server.behind), timeout=5)
        except OSError:
            self.server.refused += 1
            with suppress(OSError):
                self.request.recv(65_536)
                self.request.sendall(_BAD_GATEWAY)
            return
        behind.settimeout(None)
        back = threading.Thread(target=_copy, args=[behind, self.request], daemon=True)
        back.start()
        _copy(self.request, behind)
        back.join()
        behind.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy before a port."""
    with Proxy(port) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, daemon=True)
        serving.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            serving.join()
