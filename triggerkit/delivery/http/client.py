"""HTTP/1.1 for pushes, over connections that are kept for the next one.

Our own, because a push is most of what an idle change costs: side by side, httpcore takes seven
times the processor time per request (docs/decisions.md). It knows no redirects, no proxies, no
cookies and no compression: a push needs none of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from triggerkit.delivery.http.connection import CannotReach, Connection, Response

#: Seconds a connection is kept for the next request: less than the five after which many servers
#: close it, so that none is closed as a request is written.
KEEP_S = 4.0

#: Connections kept for one endpoint.
KEEP_CONNECTIONS = 64


#: Headers that say how a request is framed and where it goes: only the client sets them.
OWN = frozenset({"host", "content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """The target of a URL's requests: one connection serves requests of the same origin."""

    host: str
    port: int
    is_tls: bool
    target: str

    @property
    def origin(self) -> tuple[str, int, bool]:
        """Return the key that a connection is kept by."""
        return (self.host, self.port, self.is_tls)

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


@lru_cache(maxsize=1024)
def endpoint_of(url: str) -> HttpTarget:
    """Read `url`.

    Raises:
        CannotReach: it is no http or https URL, or has a password; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        # What is said of it would repeat parts of it.
        raise CannotReach("the URL's host or port is none") from None
    if parts.scheme not in ("http", "https") or not host:
        raise CannotReach("the URL must begin with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise CannotReach(
            "the URL must not have a user name or password; send them in a header instead"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise CannotReach("the URL has characters that must be percent-encoded")
    is_tls = parts.scheme == "https"
    return HttpTarget(host, port or (443 if is_tls else 80), is_tls, target)


#: Gives the addresses a host may be reached at, or raises `CannotReach`.
Resolve = Callable[[str, int], Awaitable[list[str]]]


class HttpClient:
    """Sends requests; each endpoint's free connections are used again, the last used first."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None
        self._free: dict[tuple[str, int, bool], list[Connection]] = {}

    def close(self) -> None:
        """Close the connections that are kept."""
        for connections in self._free.values():
            for connection in connections:
                connection.close()
        self._free.clear()

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Response:
        """Send one request and read its answer; the caller sets the deadline.

        Raises:
            CannotReach: no connection could be made.
            HttpError: no complete answer came.
        """
        endpoint = endpoint_of(url)
        message = request_bytes(method, endpoint, headers, body)
        connection = self._take(endpoint) or await self._connect(endpoint)
        response = await connection.request(message)
        free = self._free.setdefault(endpoint.origin, [])
        if connection.is_open and len(free) < KEEP_CONNECTIONS:
            free.append(connection)
        else:
            connection.close()
        return response

    def _take(self, endpoint: HttpTarget) -> Connection | None:
        free = self._free.get(endpoint.origin, [])
        oldest = asyncio.get_running_loop().time() - KEEP_S
        while free:
            connection = free.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, endpoint: HttpTarget) -> Connection:
        error: Exception | None = None
        for address in await self._resolve(endpoint.host, endpoint.port):
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection,
                    address,
                    endpoint.port,
                    ssl=self.tls_context() if endpoint.is_tls else None,
                    server_hostname=endpoint.host if endpoint.is_tls else None,
                )
                return connection
            except (OSError, ssl.SSLError) as failed:
                error = error or failed
        raise CannotReach(f"cannot connect to {endpoint.authority}: {error}") from error

    def tls_context(self) -> ssl.SSLContext:
        """Checks certificates against the system's authorities, and the host's name."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def request_bytes(
    method: str, endpoint: HttpTarget, headers: Mapping[str, str], body: bytes
) -> bytes:
    """Return a whole request as it goes over the line.

    Raises:
        CannotReach: a header cannot be sent.
    """
    lines = [f"{method} {endpoint.target} HTTP/1.1", f"host: {endpoint.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in OWN]
    lines.append(f"content-length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise CannotReach("a header of the endpoint has a line break")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    except UnicodeEncodeError:
        raise CannotReach("a header of the endpoint has characters that HTTP cannot send") from None
