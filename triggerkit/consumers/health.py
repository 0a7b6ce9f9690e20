"""How far behind each consumer is."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

_LAG = """
SELECT c.name, c.kind, c.state, c.last_error, coalesce(sum(l.messages), 0)::bigint AS lag_messages,
    coalesce(extract(epoch FROM clock_timestamp() - min(l.oldest)), 0)::float AS lag_seconds,
    (SELECT count(*) FROM triggerkit.parked p WHERE p.consumer_id = c.id) AS parked,
    (SELECT count(*) FROM triggerkit.backfills b
     WHERE b.consumer_id = c.id AND b.state = 'active') AS backfills
FROM triggerkit.consumers c
LEFT JOIN triggerkit.cursors k ON k.consumer_id = c.id
LEFT JOIN LATERAL (
    SELECT count(*) AS messages, min(e.captured_at) AS oldest FROM triggerkit.events e
    WHERE e.database_id = c.database_id AND e.partition = k.partition AND e.position > k.position
      AND (e.consumer_id IS NULL OR e.consumer_id = c.id)
      AND c.definition -> 'tables' ? (e.schema_name || '.' || e.table_name)) l ON true
GROUP BY c.id ORDER BY c.name
"""


@dataclass(frozen=True, slots=True)
class ConsumerHealth:
    """A consumer's state and lag. `lag_messages` counts what its cursors have not passed yet."""

    name: str
    kind: str
    state: str
    last_error: str | None
    lag_messages: int
    lag_seconds: float
    parked: int
    backfills: int


async def consumer_health(connection: psycopg.AsyncConnection) -> list[ConsumerHealth]:
    """All consumers, by name."""
    async with connection.cursor(row_factory=class_row(ConsumerHealth)) as cursor:
        await cursor.execute(_LAG)
        return await cursor.fetchall()
