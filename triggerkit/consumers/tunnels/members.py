"""Tunnels that are open: which process holds each, and who may have one.

The process that holds a tunnel says every second that it does; the view `open_tunnels` has those of
which that was said of late, by the database's clock alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from triggerkit.errors import TriggerkitError, unknown_name
from triggerkit.state.channels import notify_tunnels

#: In the order of their ids, so that two who open several tunnels wait for each other.
_LOCK = """
SELECT name, id, local FROM triggerkit.endpoints WHERE name = ANY (%s) ORDER BY id FOR UPDATE
"""

_NAMES = "SELECT name, local FROM triggerkit.endpoints ORDER BY name"

#: What nobody holds, what the same command had before its line was cut, and what the same user has
#: elsewhere, where not both share it: a command that died may not have been missed yet.
_FORGET = """
DELETE FROM triggerkit.tunnels t
WHERE t.endpoint_id = ANY (%(endpoints)s) AND (
    (t.token = %(user)s AND (t.instance = %(instance)s OR NOT (t.is_shared AND %(shared)s)))
    OR NOT EXISTS (SELECT FROM triggerkit.open_tunnels o WHERE o.id = t.id))
"""

_HELD = """
SELECT e.name, t.token, t.since, t.is_shared FROM triggerkit.tunnels t
JOIN triggerkit.endpoints e ON e.id = t.endpoint_id
WHERE t.endpoint_id = ANY (%s) ORDER BY t.id
"""

_ADD = """
INSERT INTO triggerkit.tunnels (endpoint_id, token, instance, serve, port, is_shared)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING id
"""

_BEAT = """
UPDATE triggerkit.tunnels t SET seen_at = clock_timestamp()
FROM triggerkit.endpoints e
WHERE e.id = t.endpoint_id AND e.local AND t.serve = %s AND t.id = ANY (%s) RETURNING t.id
"""

_STILL = """
SELECT EXISTS (SELECT FROM triggerkit.tunnel_tokens WHERE name = %s),
    EXISTS (SELECT FROM triggerkit.endpoints WHERE id = %s AND local),
    EXISTS (SELECT FROM triggerkit.tunnels
        WHERE token = %s AND endpoint_id = %s AND instance <> %s AND NOT is_shared)
"""

_LEAVE = "DELETE FROM triggerkit.tunnels WHERE id = ANY (%s)"

_OPEN = """
SELECT o.endpoint_id, o.id, o.serve, o.token AS "user", o.port, t.instance
FROM triggerkit.open_tunnels o JOIN triggerkit.tunnels t ON t.id = o.id
ORDER BY o.endpoint_id, o.id
"""


class TunnelRefused(TriggerkitError):
    """The server does not open the tunnel, or ended it for good; its answer says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The tunnels that a command asks for: the port of each endpoint, by its name. `instance` is
    the command, whichever connection it asks by."""

    user: str
    instance: str
    ports: dict[str, int]
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A tunnel that is open, the process that holds it, and the command that opened it."""

    endpoint_id: int
    id: int
    serve: str
    user: str
    port: int
    instance: str


async def enter(
    connection: psycopg.AsyncConnection, wanted: Wanted, serve: str
) -> dict[int, tuple[int, str]]:
    """Open the tunnels; returns the endpoint's id and name of each, by the tunnel's.

    Raises:
        TunnelRefused: an endpoint is unknown or not local, or somebody else has a tunnel to it.
    """
    async with connection.transaction():
        cursor = await connection.execute(_LOCK, [list(wanted.ports)])
        found = {name: (id_, local) for name, id_, local in await cursor.fetchall()}
        for name in wanted.ports:
            if name not in found or not found[name][1]:
                raise TunnelRefused(await _unknown(connection, name, is_there=name in found))
        ids = [id_ for id_, _ in found.values()]
        given = {
            "endpoints": ids,
            "instance": wanted.instance,
            "user": wanted.user,
            "shared": wanted.is_shared,
        }
        await connection.execute(_FORGET, given)
        cursor = await connection.execute(_HELD, [ids])
        for name, user, since, is_shared in await cursor.fetchall():
            if not (wanted.is_shared and is_shared):
                when = f"{since:%Y-%m-%d %H:%M} UTC"
                raise TunnelRefused(_taken(name, user, when, is_shared=is_shared))
        opened: dict[int, tuple[int, str]] = {}
        for name, port in wanted.ports.items():
            endpoint_id = found[name][0]
            row = [endpoint_id, wanted.user, wanted.instance, serve, port, wanted.is_shared]
            cursor = await connection.execute(_ADD, row)
            [(tunnel_id,)] = await cursor.fetchall()
            opened[tunnel_id] = (endpoint_id, name)
        await notify_tunnels(connection)
    return opened


def _taken(endpoint: str, user: str, since: str, *, is_shared: bool) -> str:
    if is_shared:
        return (
            f"{user} has a tunnel to {endpoint} since {since} and shares it: run with --share, and "
            "each of you gets the messages of other keys"
        )
    return (
        f"{user} has a tunnel to {endpoint} since {since}; ask them to end it, or both run with "
        "--share: then each of you gets the messages of other keys"
    )


async def _unknown(connection: psycopg.AsyncConnection, name: str, *, is_there: bool) -> str:
    if is_there:
        return (
            f"endpoint {name!r} is not local: messages go to its URL; to have them here, run on "
            f"the server: triggerkit endpoints edit {name} --local"
        )
    cursor = await connection.execute(_NAMES)
    known = [known for known, local in await cursor.fetchall() if local]
    create = f"triggerkit endpoints create {name} /api/my-route --local"
    return f"{unknown_name('local endpoint', name, known)}; make one on the server: {create}"


async def beat(connection: psycopg.AsyncConnection, serve: str, tunnels: Sequence[int]) -> set[int]:
    """Say that `serve` holds these tunnels, and no others that it could not end; returns those that
    are still its own."""
    cursor = await connection.execute(_BEAT, [serve, list(tunnels)])
    return {tunnel_id for (tunnel_id,) in await cursor.fetchall()}


async def why_ended(
    connection: psycopg.AsyncConnection, user: str, instance: str, endpoint_id: int, endpoint: str
) -> str | None:
    """Return why a tunnel was ended by somebody; None of one that its command has opened anew."""
    row = [user, endpoint_id, user, endpoint_id, instance]
    cursor = await connection.execute(_STILL, row)
    [(has_token, is_local, is_elsewhere)] = await cursor.fetchall()
    if not has_token:
        return f"the token of {user} was revoked: ask for another one"
    if not is_local:
        return f"endpoint {endpoint} is not local any more: its messages go to its URL"
    if is_elsewhere:
        return f"{user} has opened a tunnel to {endpoint} elsewhere, which has its messages now"
    return None


async def leave(connection: psycopg.AsyncConnection, tunnels: Sequence[int]) -> None:
    """End tunnels; what was on its way through them is answered by nobody."""
    async with connection.transaction():
        await connection.execute(_LEAVE, [list(tunnels)])
        await notify_tunnels(connection)


async def open_tunnels(connection: psycopg.AsyncConnection) -> dict[int, list[Held]]:
    """Return the tunnels that are open, by their endpoint, the oldest first."""
    async with connection.cursor(row_factory=class_row(Held)) as cursor:
        await cursor.execute(_OPEN)
        found: dict[int, list[Held]] = {}
        for held in await cursor.fetchall():
            found.setdefault(held.endpoint_id, []).append(held)
    return found
