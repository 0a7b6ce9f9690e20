"""Which addresses a push may reach: each is resolved once, checked, and connected to as checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore2

from triggerkit.errors import ConfigurationError

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class AddressRefused(httpcore2.ConnectError):
    """The endpoint's host is a private address and not in TRIGGERKIT_ALLOW_NETWORKS."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of networks such as `10.0.0.0/8, 192.168.1.7/32`.

    Raises:
        ConfigurationError: one of them is not a network.
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(f"TRIGGERKIT_ALLOW_NETWORKS: {error}") from None


def is_allowed(address: str, allowed: Iterable[Network]) -> bool:
    """Whether a push may connect to `address`: public ones, and those in `allowed`."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == network.version and ip in network for network in allowed):
        return True
    return ip.is_global and not ip.is_multicast


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses only; a name that resolves to a refused one is refused."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            if not is_allowed(address, self._allowed):
                raise AddressRefused(
                    f"{host} is {address}, which is not public; "
                    "allow it with TRIGGERKIT_ALLOW_NETWORKS"
                )
        return await self._connect_first(addresses, port, timeout, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefused("a push goes to http or https, not to a socket file")

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)

    async def _connect_first(
        self,
        addresses: list[str],
        port: int,
        timeout: float | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        errors: list[Exception] = []
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout=timeout, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                errors.append(error)
        raise errors[0] if errors else httpcore2.ConnectError("no address to connect to")
