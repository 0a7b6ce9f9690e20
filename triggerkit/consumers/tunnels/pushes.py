"""Pushes on their way through a tunnel: the stream leaves them in the state, the process that holds
the tunnel takes them, and leaves the answer.

Both reach the state's database, wherever they run, and each is woken by a notification. Nothing of
it outlasts the push, and nothing of it is written ahead: the table is not logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.consumers.endpoints.model import COLUMNS, SealedEndpoint
from triggerkit.state.channels import notify_tunnels

#: Seconds in which a push must be taken: who left it gives up then.
TAKE_S = 10

_ASK = """
INSERT INTO triggerkit.tunnel_pushes
    (id, tunnel_id, batch_id, attempt, timeout_s, is_test, body)
SELECT %s, t.id, %s, %s, %s, %s, %b FROM triggerkit.tunnels t
WHERE t.id = %s FOR KEY SHARE OF t RETURNING id
"""

_TAKE = f"""
WITH taken AS (
    UPDATE triggerkit.tunnel_pushes p SET taken_at = clock_timestamp()
    FROM triggerkit.tunnels t
    WHERE t.id = p.tunnel_id AND t.id = ANY (%s) AND p.taken_at IS NULL
      AND p.asked_at > clock_timestamp() - interval '{TAKE_S} s'
    RETURNING p.*, t.endpoint_id)
SELECT p.id, p.tunnel_id, p.batch_id, p.attempt, p.timeout_s, p.is_test, p.body, {COLUMNS}
FROM taken p JOIN triggerkit.endpoints e ON e.id = p.endpoint_id ORDER BY p.asked_at
"""  # noqa: S608 - of constants

_ANSWER = """
UPDATE triggerkit.tunnel_pushes SET answered_at = clock_timestamp(), status = %s, headers = %s,
    answer = %b, is_cut = %s, error = %s, is_suspect = %s
WHERE id = %s
"""

_LOOK = """
SELECT taken_at IS NOT NULL AS is_taken, answered_at IS NOT NULL AS is_answered, status, headers,
    answer AS body, is_cut, error, is_suspect
FROM triggerkit.tunnel_pushes WHERE id = %s
"""

_HAS_ANSWERS = """
SELECT EXISTS (SELECT FROM triggerkit.tunnel_pushes
    WHERE tunnel_id = ANY (%s) AND answered_at IS NOT NULL)
"""

_FORGET = "DELETE FROM triggerkit.tunnel_pushes WHERE id = %s"

#: Left by a stream that died. The longest push takes an hour, and its way.
_FORGET_OLD = """
DELETE FROM triggerkit.tunnel_pushes WHERE asked_at < clock_timestamp() - interval '1 day'
"""


@dataclass(frozen=True, slots=True)
class TunnelPush:
    """A push to be sent through a tunnel. Its headers are made where it is sent: there it is
    signed, and no secret of it is stored."""

    id: UUID
    tunnel_id: int
    batch_id: str
    attempt: int
    timeout_s: float
    is_test: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class TunnelAnswer:
    """What came back: an answer of HTTP, or an `error` where there was none. `status` stands beside
    an error that is known by one, as 502 is."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False
    error: str | None = None
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """A push as it stands; what is answered has an `answer`."""

    is_taken: bool
    answer: TunnelAnswer | None


async def ask(connection: psycopg.AsyncConnection, push: TunnelPush, serve: str) -> bool:
    """Leave a push for the process that holds its tunnel; False when that is none any more."""
    row: list[Any] = [push.id, push.batch_id, push.attempt, push.timeout_s, push.is_test]
    async with connection.transaction():
        cursor = await connection.execute(_ASK, [*row, push.body, push.tunnel_id])
        is_left = await cursor.fetchone() is not None
        await notify_tunnels(connection, f"push {serve}")
    return is_left


async def take(
    connection: psycopg.AsyncConnection, tunnels: Sequence[int]
) -> list[tuple[TunnelPush, SealedEndpoint]]:
    """Take the pushes that were left for these tunnels, in the order they came."""
    cursor = await connection.execute(_TAKE, [list(tunnels)])
    found = await cursor.fetchall()
    return [(TunnelPush(*row[:7]), SealedEndpoint(*row[7:])) for row in found]


async def give_answer(
    connection: psycopg.AsyncConnection, push_id: UUID, answer: TunnelAnswer
) -> None:
    """Leave what came back of a push."""
    headers = orjson.dumps(dict(answer.headers)).decode()
    row = [answer.status, headers, answer.body, answer.is_cut, answer.error, answer.is_suspect]
    async with connection.transaction():
        await connection.execute(_ANSWER, [*row, push_id])
        await notify_tunnels(connection, f"answer {push_id}")


async def look(connection: psycopg.AsyncConnection, push_id: UUID) -> Looked | None:
    """Return how a push stands; None when its tunnel has ended."""
    async with connection.cursor(row_factory=class_row(_Row)) as cursor:
        await cursor.execute(_LOOK, [push_id])
        row = await cursor.fetchone()
    if row is None or not row.is_answered:
        return None if row is None else Looked(row.is_taken, None)
    answer = TunnelAnswer(
        row.status,
        row.headers or {},
        bytes(row.body or b""),
        bool(row.is_cut),
        row.error,
        bool(row.is_suspect),
    )
    return Looked(is_taken=True, answer=answer)


async def has_answers(connection: psycopg.AsyncConnection, tunnels: Sequence[int]) -> bool:
    """Return whether there are answers of these tunnels that nobody has looked at yet."""
    cursor = await connection.execute(_HAS_ANSWERS, [list(tunnels)])
    return await cursor.fetchone() == (True,)


async def forget(connection: psycopg.AsyncConnection, push_id: UUID) -> None:
    """Take a push back, or what is left of it."""
    await connection.execute(_FORGET, [push_id])


async def forget_old(connection: psycopg.AsyncConnection) -> None:
    """Remove what streams that died have left."""
    await connection.execute(_FORGET_OLD)


@dataclass(frozen=True, slots=True)
class _Row:
    is_taken: bool
    is_answered: bool
    status: int | None
    headers: Mapping[str, str] | None
    body: bytes | None
    is_cut: bool | None
    error: str | None
    is_suspect: bool | None


def only(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return those of `headers` that somebody reads: nothing else is stored."""
    return {name: headers[name] for name in names if name in headers}
