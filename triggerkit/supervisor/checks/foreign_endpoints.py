"""The endpoints that are not our own routes: their address, connection and TLS are tried.

Nothing is sent: a test message is `triggerkit endpoints test`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import class_row

from triggerkit.consumers.declare.declaration import Declared, DeclaredEndpoint
from triggerkit.consumers.health import tunnel_to
from triggerkit.delivery.http.network import reachable
from triggerkit.delivery.probe import Report, reach
from triggerkit.errors import CannotConnect
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.check import Check

#: Seconds for all steps of one.
TIMEOUT_S = 5.0

#: How many are tried at once.
AT_ONCE = 32

#: Those of code are our own routes.
_STORED = """
SELECT e.name, e.url, e.managed_by = 'file' AS is_of_file,
    EXISTS (SELECT FROM triggerkit.consumers c WHERE c.endpoint_id = e.id) AS is_used,
    e.local AS is_local,
    EXISTS (SELECT FROM triggerkit.open_tunnels t WHERE t.endpoint_id = e.id) AS has_tunnel
FROM triggerkit.endpoints e WHERE e.managed_by <> 'code' AND e.disabled_at IS NULL ORDER BY 1
"""


class _Tried(NamedTuple):
    """An endpoint. What goes wrong with one that no consumer uses is advice."""

    name: str
    url: str
    is_of_file: bool
    is_used: bool
    is_local: bool = False
    has_tunnel: bool = False


async def check_foreign_endpoints(
    settings: Settings, declared: Sequence[Declared], endpoints: Iterable[DeclaredEndpoint]
) -> list[Check]:
    """Check whether a push to each endpoint of the file and of the API would come through.

    Raises:
        ConfigurationError: TRIGGERKIT_ALLOW_NETWORKS is not a list of networks.
    """
    used = {consumer.definition.endpoint for consumer in declared}
    stored = await _stored(settings)
    tried = {one.name: one for one in stored if not one.is_of_file}
    for one in endpoints:
        # A path is of our own `serve`, which is probed by itself, or of a local one.
        if one.local:
            has_tunnel = any(s.name == one.name and s.has_tunnel for s in stored)
            is_used = one.name in used
            tried[one.name] = _Tried(one.name, one.url, True, is_used, True, has_tunnel)
        elif not one.url.startswith("/"):
            tried[one.name] = _Tried(one.name, one.url, True, one.name in used)
    allowed = reachable(settings.triggerkit_allow_networks, settings.public_url)
    room = asyncio.Semaphore(AT_ONCE)

    async def check(one: _Tried) -> Check:
        if one.is_local:
            return _of_tunnel(one)
        async with room:
            report = await reach(one.url, allowed, TIMEOUT_S)
        return _told(one, report, settings.triggerkit_allow_networks)

    return await asyncio.gather(*(check(tried[name]) for name in sorted(tried)))


async def _stored(settings: Settings) -> list[_Tried]:
    # Why they cannot be read is told with the state.
    with suppress(CannotConnect, psycopg.Error):
        async with (
            await connect(settings.state_dsn, "triggerkit check") as state,
            state.cursor(row_factory=class_row(_Tried)) as cursor,
        ):
            await cursor.execute(_STORED)
            return await cursor.fetchall()
    return []


def _of_tunnel(one: _Tried) -> Check:
    label = f"endpoint {one.name}"
    if one.has_tunnel:
        return Check(label, True, "local: a tunnel to it is open")
    detail = "local: no tunnel to it is open, and its messages wait for one"
    return Check(label, False, detail, tunnel_to(one.name), required=False)


def _told(one: _Tried, report: Report, listed: str) -> Check:
    label, required = f"endpoint {one.name}", one.is_used
    if report.ok:
        *_, last = report.steps
        where = next(step.detail for step in report.steps if step.name == "connect")
        detail = where if last.name == "connect" else f"{where}, {last.detail}"
        return Check(label, True, detail, required=required)
    return Check(label, False, str(report.meaning), _remedy(one, report, listed), required=required)


def _remedy(one: _Tried, report: Report, listed: str) -> str:
    correct = f"triggerkit endpoints edit {one.name} --url https://…"
    if one.is_of_file:
        correct = f"correct endpoints.{one.name} url in triggerkit.toml, then: triggerkit apply"
    if not report.steps:
        return correct
    failed, host = report.steps[-1].name, urlsplit(one.url).hostname
    if report.refused is not None:
        networks = ",".join(filter(None, (listed, network_of(report.refused))))
        return f"TRIGGERKIT_ALLOW_NETWORKS={networks}  # or {correct}"
    if failed == "connect":
        return f"start what listens there, or open the way from here to {host}; or {correct}"
    if failed == "tls":
        return (
            f"give {host} a certificate in its name of an authority that this machine trusts, or "
            f"name the authority's file in SSL_CERT_FILE; or {correct}"
        )
    return correct


def network_of(address: str) -> str:
    """Return the network of one address, as TRIGGERKIT_ALLOW_NETWORKS has it."""
    return str(ip_network(address.partition("%")[0]))
