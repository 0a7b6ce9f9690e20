"""Which addresses a push may reach: each is resolved once, checked, and connected to as checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from triggerkit.delivery.connection import CannotReach
from triggerkit.delivery.http import Resolve
from triggerkit.errors import ConfigurationError

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class AddressRefused(CannotReach):
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


def reachable(listed: str, ours: str) -> tuple[Network, ...]:
    """The private networks that pushes go to: those `listed`, and this machine if `ours` is there.

    `ours` is the host of our own routes; if they are elsewhere, nothing here is to be reached.

    Raises:
        ConfigurationError: `listed` is not a list of networks.
    """
    networks = parse_networks(listed)
    return (*networks, *LOOPBACK) if is_loopback(ours) else networks


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of `host`.

    Raises:
        CannotReach: it has none.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CannotReach(f"{host} has no address: {error}") from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def checked(allowed: tuple[Network, ...]) -> Resolve:
    """Resolves a host once, to be connected to as checked; one refused address refuses the name."""

    async def resolve(host: str, port: int) -> list[str]:
        addresses = await addresses_of(host, port)
        for address in addresses:
            if not is_allowed(address, allowed):
                raise AddressRefused(
                    f"{host} is {address}, which is not public; "
                    "allow it with TRIGGERKIT_ALLOW_NETWORKS"
                )
        return addresses

    return resolve
