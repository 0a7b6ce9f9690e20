"""Deliver a push to a port of this machine, and to nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from triggerkit.delivery.http.client import HttpClient
from triggerkit.delivery.http.connection import CannotReach, HttpError, Response
from triggerkit.tunnel.wire import Push

#: Where the app may listen: servers of several frameworks take the one or the other.
LOOPBACK = ["127.0.0.1", "::1"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the app answered, or why it did not, and how long that took.

    `is_closed`: nothing listens at the port.
    """

    ms: float
    response: Response | None = None
    error: str | None = None
    is_closed: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether the app took the messages."""
        return self.response is not None and 200 <= self.response.status < 300


class Ports:
    """The ports of this machine that a command delivers to, by their endpoint's name."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._client = HttpClient(_loopback)

    def url(self, endpoint: str, path: str) -> str:
        """Return where pushes of the endpoint go."""
        # Never to another host, whatever the path is.
        return f"http://localhost:{self._ports[endpoint]}/{path.lstrip('/')}"

    async def deliver(self, push: Push, body: bytes) -> Outcome:
        """Send a push to its port. Every fault becomes an `Outcome`."""
        begun = monotonic()
        port = self._ports.get(push.endpoint)
        if port is None:
            return Outcome(0.0, error=f"this command has no port for {push.endpoint}")
        response = error = None
        is_closed = False
        try:
            url = self.url(push.endpoint, push.path)
            async with asyncio.timeout(push.timeout_s):
                response = await self._client.request("POST", url, push.headers, body)
        except CannotReach:
            is_closed, error = True, f"nothing listens on port {port}"
        except HttpError as failed:
            error = str(failed)
        except TimeoutError:
            error = f"no answer within {push.timeout_s:g} s"
        return Outcome((monotonic() - begun) * 1000, response, error, is_closed)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


async def _loopback(host: str, port: int) -> list[str]:  # noqa: ARG001 - all of them are here
    return LOOPBACK
