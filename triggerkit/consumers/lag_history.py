"""Noting once a minute how far the log and its consumers are, for charts, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import psycopg

from triggerkit.consumers.health import consumer_health
from triggerkit.state.reading import Reads, rows_of

#: For how long it is kept.
KEPT = timedelta(days=7)

_LAG = """
INSERT INTO triggerkit.lag_minutes (consumer_id, at, messages, seconds)
SELECT u.id, date_trunc('minute', clock_timestamp()), u.messages, u.seconds
FROM unnest(%s::int[], %s::bigint[], %s::float[]) u (id, messages, seconds)
JOIN triggerkit.consumers c ON c.id = u.id
ON CONFLICT (consumer_id, at) DO UPDATE SET messages = excluded.messages,
    seconds = excluded.seconds
"""

_LOG = """
INSERT INTO triggerkit.log_minutes (database_id, at, position)
SELECT id, date_trunc('minute', clock_timestamp()), next_position - 1 FROM triggerkit.databases
ON CONFLICT (database_id, at) DO UPDATE SET position = excluded.position
"""

_FORGET = (
    "DELETE FROM triggerkit.lag_minutes WHERE at < statement_timestamp() - %s::interval",
    "DELETE FROM triggerkit.log_minutes WHERE at < statement_timestamp() - %s::interval",
)

#: The worst of each step, and of all consumers or one. Each minute is of all consumers first: of
#: their rows there are many, and a step takes longer to compute than a row to read.
_READ_LAG = """
SELECT to_timestamp(floor(extract(epoch FROM n.at) / %(step_s)s) * %(step_s)s) AS step,
    max(n.messages), max(n.seconds)
FROM (
    SELECT m.at, max(m.messages) AS messages, max(m.seconds) AS seconds
    FROM triggerkit.lag_minutes m
    WHERE m.at >= %(since)s AND (%(consumer)s::text IS NULL OR m.consumer_id = (
        SELECT c.id FROM triggerkit.consumers c WHERE c.name = %(consumer)s))
    GROUP BY m.at) n
GROUP BY 1 ORDER BY 1
"""

_READ_CAPTURED = """
SELECT to_timestamp(floor(extract(epoch FROM at) / %(step_s)s) * %(step_s)s) AS step,
    sum(greatest(0, position - before))::bigint
FROM (
    SELECT at, position, lag(position) OVER (PARTITION BY database_id ORDER BY at) AS before
    FROM triggerkit.log_minutes WHERE at >= %(since)s) m
GROUP BY 1 ORDER BY 1
"""


async def note_lag(connection: psycopg.AsyncConnection) -> None:
    """Note how far the log and its consumers are at this minute; forget what is old."""
    found = await consumer_health(connection)
    await connection.execute(
        _LAG,
        [
            [one.id for one in found],
            [one.lag_messages for one in found],
            [one.lag_seconds for one in found],
        ],
    )
    await connection.execute(_LOG)
    for statement in _FORGET:
        await connection.execute(statement, [KEPT])


async def read_lag(
    connection: Reads, step_s: int, since: datetime, consumer: str | None = None
) -> Mapping[datetime, tuple[int, float]]:
    """Return the longest lag of each step, in messages and in seconds."""
    given = {"step_s": step_s, "since": since, "consumer": consumer}
    found = await rows_of(connection, _READ_LAG, given)
    return {at: (messages, seconds) for at, messages, seconds in found}


async def read_captured(connection: Reads, step_s: int, since: datetime) -> Mapping[datetime, int]:
    """Return the changes that came into the log in each step."""
    found = await rows_of(connection, _READ_CAPTURED, {"step_s": step_s, "since": since})
    return {at: count or 0 for at, count in found}
