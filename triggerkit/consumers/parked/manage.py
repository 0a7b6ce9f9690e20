"""Parked messages as commands and the API see them: list, show, retry now, discard.

What changes them leaves a line in the audit and notifies the stream, which takes it in while it
runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from triggerkit.consumers.parked.heads import LOCK_CURSORS, promote
from triggerkit.consumers.parked.states import (
    IN_ANY_PARTITION,
    PARKED_STATES,
    TRUNCATE,
    ParkedState,
)
from triggerkit.errors import NotRetryable, TriggerkitError, UnknownConsumer, UnknownMessage
from triggerkit.state.audit import note
from triggerkit.state.channels import notify_consumers

_COLUMNS = (
    "c.name AS consumer, p.position, p.key, p.state, p.reason, p.attempts, p.failures, p.status, "
    "p.due_at, p.parked_at"
)

#: By consumer and state, each in the order of its index: however many are parked, no more of them
#: are read than may be on the page.
_LIST = f"""
SELECT {_COLUMNS} FROM (
    SELECT id, name FROM triggerkit.consumers
    WHERE (%(consumer)s::text IS NULL OR name = %(consumer)s)
      AND (%(after)s::text IS NULL OR name >= %(after)s)
    ORDER BY name) c
CROSS JOIN LATERAL (
    SELECT f.* FROM unnest(%(states)s::text[]) s (state) CROSS JOIN LATERAL (
        SELECT position, key, state, reason, attempts, failures, status, due_at, parked_at
        FROM triggerkit.parked
        WHERE consumer_id = c.id AND state = s.state
          AND position > CASE WHEN c.name = %(after)s THEN %(position)s::bigint ELSE -1 END
        ORDER BY position LIMIT %(limit)s) f
    ORDER BY f.position LIMIT %(limit)s) p
ORDER BY c.name, p.position LIMIT %(limit)s
"""  # noqa: S608 - of constants

_SHOW = f"""
SELECT {_COLUMNS}, p.body FROM triggerkit.parked p
JOIN triggerkit.consumers c ON c.id = p.consumer_id
WHERE c.name = %s AND {IN_ANY_PARTITION} AND p.position = %s
"""  # noqa: S608 - of constants

#: The pushes that carried a position, by itself and in batches. Looked for among the next thousand
#: that end at or after it.
_ATTEMPTS = f"""
SELECT d.batch_id, d.attempt, d.messages, d.sent_at, d.answered_at, d.status, d.error
FROM triggerkit.parked p CROSS JOIN LATERAL (
    SELECT * FROM triggerkit.deliveries d
    WHERE d.consumer_id = p.consumer_id AND d.partition = p.partition
      AND d.last_position >= p.position
    ORDER BY d.last_position LIMIT 1000) d
JOIN triggerkit.consumers c ON c.id = p.consumer_id
WHERE c.name = %s AND {IN_ANY_PARTITION} AND p.position = %s AND d.first_position <= p.position
ORDER BY d.sent_at
"""  # noqa: S608 - of constants

#: Those at some positions, of which there are none where all are meant.
_THESE = f"""
  AND {IN_ANY_PARTITION} AND p.position = ANY (%(positions)s)
"""

#: What was given up without an attempt lacks what would be sent; what is leased is being tried;
#: what is superseded is older than the truncate that was delivered after it; what came after a
#: truncate went on without it.
_RETRY = """
UPDATE triggerkit.parked p SET state = 'failing', failures = 0, due_at = clock_timestamp(),
    lease_id = NULL
WHERE p.consumer_id = %(consumer_id)s AND p.state NOT IN ('waiting', 'superseded')
  AND (%(state)s::text IS NULL OR p.state = %(state)s)
  AND (p.state = 'failing' OR p.attempts > 0)
  AND NOT starts_with(p.body, %(truncate)s)
  AND (p.lease_id IS NULL OR p.due_at <= clock_timestamp()){those}
RETURNING p.position
"""

_DISCARD = """
DELETE FROM triggerkit.parked p
WHERE p.consumer_id = %(consumer_id)s
  AND (%(state)s::text IS NULL OR p.state = %(state)s){those}
RETURNING p.key
"""

_RETRY_ALL, RETRY = _RETRY.format(those=""), _RETRY.format(those=_THESE)
_DISCARD_ALL, DISCARD = _DISCARD.format(those=""), _DISCARD.format(those=_THESE)


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked message without its body. `failures` are the attempts that count."""

    consumer: str
    position: int
    key: str
    state: ParkedState
    reason: str
    attempts: int
    failures: int
    status: int | None
    due_at: datetime
    parked_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """A push of a batch that carried a message. `status` is None when no answer came."""

    batch_id: str
    attempt: int
    messages: int
    sent_at: datetime
    answered_at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ParkedDetail(Parked):
    """A parked message with its body, JSON before a transform."""

    body: str


@dataclass(frozen=True, slots=True)
class ParkedPage:
    """Parked messages by consumer and position; `next` continues the list, None at its end."""

    messages: list[Parked]
    next: str | None


async def list_parked(
    connection: psycopg.AsyncConnection,
    *,
    consumer: str | None = None,
    state: ParkedState | None = None,
    after: str | None = None,
    limit: int = 100,
) -> ParkedPage:
    """Return a page of parked messages; `after` is the `next` of the page before."""
    name, _, position = (after or "").rpartition("/")
    parameters = {
        "consumer": consumer,
        "states": list(PARKED_STATES) if state is None else [state],
        "after": name or None,
        "position": int(position) if name and position.isdecimal() else 0,
        "limit": limit + 1,
    }
    async with connection.cursor(row_factory=class_row(Parked)) as cursor:
        await cursor.execute(_LIST, parameters)
        found = await cursor.fetchall()
    if len(found) <= limit:
        return ParkedPage(found, None)
    last = found[limit - 1]
    return ParkedPage(found[:limit], f"{last.consumer}/{last.position}")


async def show_parked(
    connection: psycopg.AsyncConnection, consumer: str, position: int
) -> tuple[ParkedDetail, list[DeliveryAttempt]]:
    """Return a parked message and the pushes that carried it, the first one first.

    Raises:
        UnknownMessage: it is not parked.
    """
    async with connection.cursor(row_factory=class_row(ParkedDetail)) as details:
        await details.execute(_SHOW, [consumer, position])
        found = await details.fetchone()
    if found is None:
        raise _unknown(consumer, position)
    async with connection.cursor(row_factory=class_row(DeliveryAttempt)) as attempts:
        await attempts.execute(_ATTEMPTS, [consumer, position])
        return found, await attempts.fetchall()


async def retry_parked(
    connection: psycopg.AsyncConnection,
    consumer: str,
    actor: str,
    *,
    position: int | None = None,
    state: ParkedState | None = None,
) -> int:
    """Have one message tried now, or all of a consumer (in one state); returns how many.

    Their attempts count anew. Those that wait behind others follow by themselves; what is dead goes
    behind later messages of its key that were delivered since.

    Raises:
        UnknownConsumer, UnknownMessage: there is no such consumer or message.
        NotRetryable: the one message waits behind another, or lacks what would be sent.
    """
    async with connection.transaction():
        parameters = await locked(connection, consumer, position, state)
        cursor = await connection.execute(_RETRY_ALL if position is None else RETRY, parameters)
        if position is not None and cursor.rowcount == 0:
            raise await why_not(connection, consumer, position)
        await _note(connection, actor, "retry", consumer, parameters, cursor.rowcount)
        return cursor.rowcount


async def discard_parked(
    connection: psycopg.AsyncConnection,
    consumer: str,
    actor: str,
    *,
    position: int | None = None,
    state: ParkedState | None = None,
) -> int:
    """Drop one message, or all of a consumer (in one state), forever; returns how many.

    What waited behind them is tried.

    Raises:
        UnknownConsumer, UnknownMessage: there is no such consumer or message.
    """
    async with connection.transaction():
        parameters = await locked(connection, consumer, position, state)
        query = _DISCARD_ALL if position is None else DISCARD
        cursor = await connection.execute(query, parameters)
        keys = {key for (key,) in await cursor.fetchall()}
        if position is not None and not keys:
            raise _unknown(consumer, position)
        await promote(connection, parameters["consumer_id"], keys)
        await _note(connection, actor, "discard", consumer, parameters, cursor.rowcount)
        return cursor.rowcount


async def locked(
    connection: psycopg.AsyncConnection,
    consumer: str,
    position: int | None,
    state: ParkedState | None,
    positions: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Lock the consumer's cursors and return the parked messages that are meant: nothing is parked
    or taken meanwhile."""
    cursor = await connection.execute(
        "SELECT id FROM triggerkit.consumers WHERE name = %s", [consumer]
    )
    row = await cursor.fetchone()
    if row is None:
        cursor = await connection.execute("SELECT name FROM triggerkit.consumers ORDER BY 1")
        raise UnknownConsumer(consumer, [known for (known,) in await cursor.fetchall()])
    await connection.execute(LOCK_CURSORS, [row[0]])
    if position is not None:
        positions = [position]
    return {
        "consumer_id": row[0],
        "position": position,
        "positions": None if positions is None else list(positions),
        "state": state,
        "truncate": TRUNCATE,
    }


async def why_not(
    connection: psycopg.AsyncConnection, consumer: str, position: int
) -> TriggerkitError:
    """Return why a message is not tried now."""
    try:
        found, _ = await show_parked(connection, consumer, position)
    except UnknownMessage as error:
        return error
    if found.state == "waiting":
        return NotRetryable(
            f"position {position} of {consumer} waits behind an earlier message of its key: retry "
            "or discard that one, and it follows"
        )
    if found.state == "superseded":
        return NotRetryable(
            f"position {position} of {consumer} cannot be sent: its table was truncated after it, "
            "which its receiver was told; discard it"
        )
    if found.body.startswith(TRUNCATE):
        return NotRetryable(
            f"position {position} of {consumer} is a truncate, and what came after it went on: "
            f"empty the receiver's copy, then run: triggerkit backfill start {consumer}"
        )
    if found.state == "failing":
        return NotRetryable(f"position {position} of {consumer} is being tried at this moment")
    return NotRetryable(
        f"position {position} of {consumer} cannot be sent: {found.reason}; discard it"
    )


async def _note(
    connection: psycopg.AsyncConnection,
    actor: str,
    action: str,
    consumer: str,
    parameters: dict[str, Any],
    count: int,
) -> None:
    detail = {"position": parameters["position"], "state": parameters["state"], "messages": count}
    await note(connection, actor, f"{action} messages", f"consumer {consumer}", detail)
    await notify_consumers(connection)


def _unknown(consumer: str, position: int) -> UnknownMessage:
    return UnknownMessage(
        f"no message of {consumer} is parked at position {position}; "
        f"those that are: triggerkit messages list --consumer {consumer}"
    )
