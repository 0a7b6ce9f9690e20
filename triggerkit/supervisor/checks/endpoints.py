"""The endpoints: whether deliveries reach them. A probe asks for health and delivers nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

import httpcore2

from triggerkit.consumers.apply import Declared
from triggerkit.delivery.network import (
    LOOPBACK,
    CheckedNetwork,
    Network,
    is_allowed,
    is_loopback,
    parse_networks,
)
from triggerkit.settings import Settings
from triggerkit.supervisor.checks.check import Check

#: Seconds after which a probe gives up.
TIMEOUT_S = 5.0

#: No more of an answer is looked at.
MAX_ANSWER_BYTES = 1024


class _Outcome(NamedTuple):
    """What a probe found; not `ok` and not `required` is advice."""

    ok: bool
    detail: str
    remedy: str | None = None
    required: bool = True


async def check_endpoints(settings: Settings, declared: Sequence[Declared]) -> list[Check]:
    """Whether each consumer's endpoint can be reached, as `apply` makes it.

    All of them are routes of `serve`, so that one probe stands for all.

    Raises:
        ConfigurationError: TRIGGERKIT_ALLOW_NETWORKS is not a list of networks.
    """
    if not declared:
        return []
    base = settings.public_url
    found = await _probe(base, settings.triggerkit_allow_networks)
    return [
        Check(
            f"endpoint of {d.name}",
            found.ok,
            f"{base}{d.path}: {found.detail}",
            found.remedy,
            found.required,
        )
        for d in declared
    ]


async def _probe(base: str, listed: str) -> _Outcome:
    correct = "correct TRIGGERKIT_PUBLIC_URL; it looks like https://app.example.com"
    try:
        parts = urlsplit(base)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return _Outcome(False, f"not a URL: {error}", correct)
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        return _Outcome(False, "not an address that deliveries go to", correct)
    allowed = _allowed(host, listed)
    try:
        addresses = await _addresses(host, port or (443 if parts.scheme == "https" else 80))
    except OSError as error:
        return _Outcome(False, f"{host} has no address: {error.strerror}", correct)
    refused = [a for a in addresses if not is_allowed(a, allowed)]
    if refused:
        networks = ",".join(filter(None, (listed, *map(_network, refused))))
        remedy = f"TRIGGERKIT_ALLOW_NETWORKS={networks}"
        return _Outcome(False, f"{host} is {refused[0]}, which is not public", remedy)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _ask(base, allowed)
    except TimeoutError:
        problem = f"no answer within {TIMEOUT_S:g} s"
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        if any(isinstance(cause, ConnectionRefusedError) for cause in _causes(error)):
            start = "triggerkit serve  # or, in development: triggerkit dev"
            return _Outcome(False, "nothing listens there yet", start, required=False)
        problem = f"{type(error).__name__}: {error}"
    return _Outcome(False, problem, f"open the way from here to {host}, or {correct}")


async def _ask(base: str, allowed: tuple[Network, ...]) -> _Outcome:
    async with (
        httpcore2.AsyncConnectionPool(network_backend=CheckedNetwork(allowed)) as pool,
        pool.stream("GET", f"{base}/healthz", headers={"user-agent": "triggerkit"}) as answer,
    ):
        body = bytearray()
        async for chunk in answer.aiter_stream():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                break
    if answer.status == 200 and b'"alive"' in body:
        return _Outcome(True, "reachable")
    detail = f"{base}/healthz answers {answer.status}, not as `triggerkit serve` does"
    if answer.status >= 500:
        return _Outcome(False, detail, "start `triggerkit serve` behind it")
    # A proxy may let only the routes through.
    remedy = "if that is no proxy before `triggerkit serve`, stop it or choose another port"
    return _Outcome(False, detail, remedy, required=False)


def _allowed(host: str, listed: str) -> tuple[Network, ...]:
    """The networks that `stream` delivers to, loopback where our own routes are there."""
    networks = parse_networks(listed)
    return (*networks, *LOOPBACK) if is_loopback(host) else networks


async def _addresses(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _network(address: str) -> str:
    return str(ip_network(address.partition("%")[0]))


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _causes(cause)
