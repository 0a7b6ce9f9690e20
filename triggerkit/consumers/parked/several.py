"""Some parked messages at once, by their positions: what larger actions are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from triggerkit.consumers.parked.heads import promote
from triggerkit.consumers.parked.manage import DISCARD, RETRY, locked, why_not
from triggerkit.consumers.parked.states import IN_ANY_PARTITION, ParkedState
from triggerkit.state.channels import notify_consumers

#: Those of some positions that are parked still and do not merely wait for others.
_LEFT = f"""
SELECT p.position FROM triggerkit.parked p
WHERE p.consumer_id = %(consumer_id)s AND {IN_ANY_PARTITION} AND p.position = ANY (%(positions)s)
  AND p.state <> 'waiting' AND NOT p.position = ANY (%(done)s)
ORDER BY p.position
"""  # noqa: S608 - of constants

_COUNT = """
SELECT count(*) FROM triggerkit.parked p JOIN triggerkit.consumers c ON c.id = p.consumer_id
WHERE (%(consumer)s::text IS NULL OR c.name = %(consumer)s)
  AND (%(state)s::text IS NULL OR p.state = %(state)s)
"""


@dataclass(frozen=True, slots=True)
class Several:
    """What became of some messages: done to so many, not done to so many, and why not to the
    first of those. Those that wait for others, or are gone meanwhile, are neither."""

    changed: int
    refused: int = 0
    refusal: str | None = None


async def retry_several(
    connection: psycopg.AsyncConnection, consumer: str, positions: Sequence[int]
) -> Several:
    """Have the messages at these positions tried now, without a line in the audit.

    Raises:
        UnknownConsumer: there is no such consumer.
    """
    async with connection.transaction():
        parameters = await locked(connection, consumer, None, None, positions)
        done = [p for (p,) in await (await connection.execute(RETRY, parameters)).fetchall()]
        left = await connection.execute(_LEFT, {**parameters, "done": done})
        refused = [position for (position,) in await left.fetchall()]
        refusal = str(await why_not(connection, consumer, refused[0])) if refused else None
        await notify_consumers(connection)
    return Several(len(done), len(refused), refusal)


async def discard_several(
    connection: psycopg.AsyncConnection, consumer: str, positions: Sequence[int]
) -> Several:
    """Drop the messages at these positions forever, without a line in the audit.

    Raises:
        UnknownConsumer: there is no such consumer.
    """
    async with connection.transaction():
        parameters = await locked(connection, consumer, None, None, positions)
        cursor = await connection.execute(DISCARD, parameters)
        keys = {key for (key,) in await cursor.fetchall()}
        await promote(connection, parameters["consumer_id"], keys)
        await notify_consumers(connection)
    return Several(cursor.rowcount)


async def count_parked(
    connection: psycopg.AsyncConnection, consumer: str | None, state: ParkedState | None
) -> int:
    """Count the parked messages of a consumer, or of all, in one state or in any."""
    row = await (
        await connection.execute(_COUNT, {"consumer": consumer, "state": state})
    ).fetchone()
    return 0 if row is None else int(row[0])
