"""Our own routes: whether deliveries reach them. A probe asks for health and delivers nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from triggerkit.configuration.addresses import http_problem
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.delivery.http.client import HttpClient
from triggerkit.delivery.http.connection import CannotReach, HttpError
from triggerkit.delivery.http.network import (
    Network,
    checked,
    is_allowed,
    not_public,
    reachable,
)
from triggerkit.delivery.http.resolver import Resolver
from triggerkit.settings import Settings
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.foreign_endpoints import network_of

#: Seconds after which a probe gives up.
TIMEOUT_S = 5.0


class _Outcome(NamedTuple):
    """The finding of a probe; not `ok` and not `required` is advice."""

    ok: bool
    detail: str
    remedy: str | None = None
    required: bool = True


async def check_own_routes(settings: Settings, declared: Sequence[Declared]) -> list[Check]:
    """Check whether our own routes can be reached, as `apply` makes them: one probe stands for
    all of them.

    Raises:
        ConfigurationError: TRIGGERKIT_ALLOW_NETWORKS is not a list of networks.
    """
    pushed = [consumer for consumer in declared if consumer.path is not None]
    if not pushed:
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
        for d in pushed
    ]


async def _probe(base: str, listed: str) -> _Outcome:
    correct = "correct TRIGGERKIT_PUBLIC_URL; it looks like https://app.example.com"
    if problem := http_problem(base):
        return _Outcome(False, f"deliveries cannot go there: {problem}", correct)
    parts = urlsplit(base)
    host = parts.hostname or ""
    allowed = reachable(listed, base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = await Resolver().addresses_of(host, port)
    except CannotReach as error:
        return _Outcome(False, str(error), correct)
    refused = [a for a in addresses if not is_allowed(a, allowed, host, port)]
    if refused:
        networks = ",".join(filter(None, (listed, *map(network_of, refused))))
        remedy = f"TRIGGERKIT_ALLOW_NETWORKS={networks}"
        return _Outcome(False, not_public(host, refused[0]), remedy)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _ask(base, allowed)
    except TimeoutError:
        problem = f"no answer within {TIMEOUT_S:g} s"
    except HttpError as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            start = "triggerkit serve  # or, in development: triggerkit dev"
            return _Outcome(False, "nothing listens there yet", start, required=False)
        problem = str(error)
    return _Outcome(False, problem, f"open the way from here to {host}, or {correct}")


async def _ask(base: str, allowed: tuple[Network, ...]) -> _Outcome:
    client = HttpClient(checked(allowed))
    try:
        answer = await client.request("GET", f"{base}/healthz", {"user-agent": "triggerkit"})
    finally:
        client.close()
    if answer.status == 200 and b'"alive"' in answer.body:
        return _Outcome(True, "reachable")
    detail = f"{base}/healthz answers {answer.status}, not as `triggerkit serve` does"
    if answer.status >= 500:
        return _Outcome(False, detail, "start `triggerkit serve` behind it")
    # A proxy may let only the routes through.
    remedy = "if that is no proxy before `triggerkit serve`, stop it or choose another port"
    return _Outcome(False, detail, remedy, required=False)
