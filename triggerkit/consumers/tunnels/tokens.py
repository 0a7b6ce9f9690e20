"""Tokens of tunnels: one for each user, of which only a digest is stored.

A token is 32 random bytes: nobody finds it by its digest, so that one needs no slow hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

import psycopg

from triggerkit.errors import ConfigurationError, NameTaken, TriggerkitError, unknown_name
from triggerkit.state.audit import note
from triggerkit.state.channels import notify_tunnels

#: What every token begins with, so that one is recognized where it must not be.
PREFIX = "tktunnel_"

TOKEN_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

_ADD = """
INSERT INTO triggerkit.tunnel_tokens (name, digest) VALUES (%s, %s)
ON CONFLICT DO NOTHING RETURNING name
"""

_LIST = """
SELECT t.name, t.created_at, t.used_at, ARRAY(
    SELECT DISTINCT e.name FROM triggerkit.tunnels u
    JOIN triggerkit.endpoints e ON e.id = u.endpoint_id WHERE u.token = t.name ORDER BY e.name)
FROM triggerkit.tunnel_tokens t ORDER BY t.name
"""

_USE = """
UPDATE triggerkit.tunnel_tokens SET used_at = clock_timestamp() WHERE digest = %s RETURNING name
"""


class UnknownTunnelToken(TriggerkitError):
    """No user has a token of this name; `triggerkit tunnel tokens list` lists them."""


@dataclass(frozen=True, slots=True)
class TunnelToken:
    """A user's token, as it is shown. `endpoints` are those that it has a tunnel open to."""

    name: str
    created_at: datetime
    used_at: datetime | None
    endpoints: list[str]


async def add_token(connection: psycopg.AsyncConnection, name: str, actor: str) -> str:
    """Make the token of a user, and return it: it is not stored, and cannot be shown again.

    Raises:
        ConfigurationError: the name is none that a user can have.
        NameTaken: the user has one.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            "a user's name has 1 to 64 letters, digits, '.', '_', '@' and '-', and begins with a "
            "letter or a digit"
        )
    token = f"{PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"
    async with connection.transaction():
        cursor = await connection.execute(_ADD, [name, _digest(token)])
        if await cursor.fetchone() is None:
            raise NameTaken(
                f"{name} has a token already; remove it first: triggerkit tunnel tokens remove "
                f"{name}"
            )
        await note(connection, actor, "add token of tunnels", name)
    return token


async def list_tokens(connection: psycopg.AsyncConnection) -> list[TunnelToken]:
    """Return all tokens, by name."""
    cursor = await connection.execute(_LIST)
    return [TunnelToken(*row) for row in await cursor.fetchall()]


async def remove_token(connection: psycopg.AsyncConnection, name: str, actor: str) -> None:
    """Revoke a user's token: its tunnels end at once.

    Raises:
        UnknownTunnelToken: the user has none.
    """
    async with connection.transaction():
        cursor = await connection.execute(
            "DELETE FROM triggerkit.tunnel_tokens WHERE name = %s RETURNING name", [name]
        )
        if await cursor.fetchone() is None:
            known = [one.name for one in await list_tokens(connection)]
            raise UnknownTunnelToken(unknown_name("token", name, known))
        await note(connection, actor, "remove token of tunnels", name)
        await notify_tunnels(connection)


async def user_of(connection: psycopg.AsyncConnection, token: str) -> str | None:
    """Return whose token it is; None of one that is nobody's."""
    if not token.startswith(PREFIX):
        return None
    # Found by its digest: how long that takes says nothing of the token.
    cursor = await connection.execute(_USE, [_digest(token)])
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
