"""Look up the addresses of hosts, each in a thread of its own: a slow one holds up no other."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address

from triggerkit.delivery.http.connection import CannotReach

#: Seconds that the lookup of a host may take.
LOOKUP_S = 5.0

#: Lookups under way at once. A resolver may take a minute to give up, and cannot be stopped.
MAX_LOOKUPS = 256


class Resolver:
    """Looks up hosts. All that ask for a host at the same time wait for the same lookup."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def addresses_of(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`.

        Raises:
            CannotReach: it has none, or nobody says so within `LOOKUP_S`.
        """
        with suppress(ValueError):
            return [str(ip_address(host))]
        lookup = self._under_way.get((host, port)) or self._begin(host, port)
        try:
            async with asyncio.timeout(LOOKUP_S):
                # The others that wait for it go on when one of them is canceled.
                return await asyncio.shield(lookup)
        except TimeoutError:
            raise CannotReach(f"{host}: its address was not found within {LOOKUP_S:g} s") from None
        except (OSError, UnicodeError) as error:
            raise CannotReach(f"{host} has no address: {error}") from error

    def _begin(self, host: str, port: int) -> asyncio.Future[list[str]]:
        if len(self._under_way) >= MAX_LOOKUPS:
            raise CannotReach(f"{host}: too many addresses of other hosts are being looked up")
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[list[str]] = loop.create_future()
        # Whether anybody still waits for it: without that, its error is not reported as lost.
        lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._under_way[host, port] = lookup

        def done(addresses: list[str], error: Exception | None) -> None:
            del self._under_way[host, port]
            if not lookup.done():
                if error is None:
                    lookup.set_result(addresses)
                else:
                    lookup.set_exception(error)

        def look() -> None:
            addresses: list[str] = []
            failed: Exception | None = None
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
            except Exception as error:
                failed = error
            # The loop may have ended in the meantime.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done, addresses, failed)

        # A daemon: the process does not wait for it at its end.
        threading.Thread(target=look, name=f"look up {host}", daemon=True).start()
        return lookup
