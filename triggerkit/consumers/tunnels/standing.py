"""Say how local endpoints stand: their tunnels, and how many messages wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psycopg

from triggerkit.consumers.endpoints.info import EndpointInfo, OpenTunnel
from triggerkit.consumers.health import ConsumerHealth, consumer_health

_TUNNELS = """
SELECT e.name, t.token, t.port, t.since, t.is_shared FROM triggerkit.open_tunnels t
JOIN triggerkit.endpoints e ON e.id = t.endpoint_id ORDER BY t.id
"""


async def with_tunnels(
    connection: psycopg.AsyncConnection, endpoints: Sequence[EndpointInfo]
) -> list[EndpointInfo]:
    """Return the endpoints, the local ones with their tunnels and with what waits for one."""
    if not any(endpoint.local for endpoint in endpoints):
        return list(endpoints)
    tunnels: dict[str, list[OpenTunnel]] = {}
    cursor = await connection.execute(_TUNNELS)
    for name, *facts in await cursor.fetchall():
        tunnels.setdefault(name, []).append(OpenTunnel(*facts))
    waiting = await waiting_of(connection)
    return [
        replace(e, tunnels=tunnels.get(e.name, []), waiting=waiting.get(e.name, 0))
        if e.local
        else e
        for e in endpoints
    ]


async def waiting_of(connection: psycopg.AsyncConnection) -> dict[str, int]:
    """Return how many messages wait for each endpoint that consumers push to, parked ones too."""
    found: dict[str, int] = {}
    for health in await consumer_health(connection):
        if health.endpoint is not None:
            found[health.endpoint] = found.get(health.endpoint, 0) + _waiting(health)
    return found


def _waiting(health: ConsumerHealth) -> int:
    return health.lag_messages + health.failing + health.waiting + health.blocked
