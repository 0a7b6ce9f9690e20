"""Decide which addresses a push may reach: each is resolved once, checked, and used as checked."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from triggerkit.configuration.addresses import has_stray_at
from triggerkit.delivery.http.client import Resolve, endpoint_of
from triggerkit.delivery.http.connection import CannotReach
from triggerkit.delivery.http.resolver import Resolver
from triggerkit.errors import ConfigurationError, InvalidEndpoint


class OwnRoutes(NamedTuple):
    """Where our own routes are reached on this machine: this host and port alone."""

    host: str
    port: int


#: What pushes may reach beside public addresses.
Network = IPv4Network | IPv6Network | OwnRoutes

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


#: All of IPv6 that is given out for the public. What lies beyond is none, or somebody's own.
PUBLIC_IPV6 = IPv6Network("2000::/3")

#: Addresses that Python, or some of its releases, takes for public: protocol assignments, a cloud's
#: metadata service, relays and translations that lead elsewhere, and what IPv6 left behind.
SPECIAL: tuple[IPv4Network | IPv6Network, ...] = (
    ip_network("192.0.0.0/24"),
    ip_network("192.88.99.0/24"),
    ip_network("168.63.129.16/32"),
    ip_network("::/96"),
    ip_network("64:ff9b:1::/48"),
    ip_network("2001::/23"),
    ip_network("2002::/16"),
    ip_network("3fff::/20"),
    ip_network("5f00::/16"),
    ip_network("fec0::/10"),
)

#: Addresses of IPv4 as a gateway of the network translates them (NAT64, RFC 6052).
NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(CannotReach):
    """The endpoint's host is a private address and not in TRIGGERKIT_ALLOW_NETWORKS."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{not_public(host, address)}; allow it with TRIGGERKIT_ALLOW_NETWORKS")
        self.address = address


def not_public(host: str, address: str) -> str:
    """Say that a host's address is none of the internet's."""
    is_itself = host.strip("[]") == address
    return f"{host} is not public" if is_itself else f"{host} is {address}, which is not public"


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of networks such as `10.0.0.0/8, 192.168.1.7/32`.

    Raises:
        ConfigurationError: one of them is not a network.
    """
    networks: list[Network] = []
    for number, part in enumerate(text.split(","), 1):
        try:
            networks += [ip_network(part.strip())] if part.strip() else []
        except ValueError:
            raise ConfigurationError(
                f"TRIGGERKIT_ALLOW_NETWORKS: number {number} of the list is not a network such as "
                "10.0.0.0/8 or 192.168.1.7/32, without bits beyond its length"
            ) from None
    return tuple(networks)


def is_allowed(
    address: str, allowed: Iterable[Network], host: str = "", port: int | None = None
) -> bool:
    """Return whether a push to `host` and `port` may connect to `address`.

    It may if the address is public, or in `allowed`.

    An address of IPv4 inside one of IPv6 counts as what it is, since that is what is reached.
    """
    given = ip_address(address)
    ip = _translated(given) if isinstance(given, IPv6Address) else given
    for network in allowed:
        if isinstance(network, OwnRoutes):
            if ip.is_loopback and (host.lower(), port) == network:
                return True
        elif _is_in(given, network) or _is_in(ip, network):
            return True
    if isinstance(ip, IPv6Address) and ip not in PUBLIC_IPV6:
        return False
    if any(_is_in(ip, network) for network in SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast


def _translated(ip: IPv6Address) -> IPv4Address | IPv6Address:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return IPv4Address(ip.packed[-4:]) if ip in NAT64 else ip


def _is_in(ip: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return ip.version == network.version and ip in network


def is_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(listed: str, public_url: str) -> tuple[Network, ...]:
    """Return the private networks that pushes go to: those `listed`, and our own routes.

    These are at `public_url`. Where that leads to this machine, its host and port are reached here,
    and nothing else is.

    Raises:
        ConfigurationError: `listed` is not a list of networks.
    """
    networks = parse_networks(listed)
    try:
        ours = endpoint_of(public_url)
    except CannotReach:
        return networks
    return (*networks, OwnRoutes(ours.host, ours.port)) if is_loopback(ours.host) else networks


def checked(allowed: tuple[Network, ...]) -> Resolve:
    """Resolves a host once, to be connected to as checked; one refused address refuses the name."""

    resolver = Resolver()

    async def resolve(host: str, port: int) -> list[str]:
        addresses = await resolver.addresses_of(host, port)
        for address in addresses:
            if not is_allowed(address, allowed, host, port):
                raise AddressRefused(host, address)
        return addresses

    return resolve


async def check_url(url: str, allowed: tuple[Network, ...]) -> None:
    """Look at an endpoint's URL as a push will, without connecting.

    Raises:
        InvalidEndpoint: pushes to it would be refused, or its host has no address.
    """
    try:
        endpoint = endpoint_of(url)
        await checked(allowed)(endpoint.host, endpoint.port)
    except CannotReach as error:
        # The host is then most likely the beginning of a password.
        why = "its host has no public address, and an @ follows" if has_stray_at(url) else error
        raise InvalidEndpoint(f"cannot push to the URL: {why}", "url") from None
