"""Gaps: changes that a consumer will never get, shown until its tables were read anew."""

from __future__ import annotations

import psycopg

_MARK = """
UPDATE triggerkit.consumers SET gap = %s, gap_at = clock_timestamp() WHERE id = ANY (%s)
"""

#: A gap is closed when every table was read whole after it was found.
_CLOSE = """
UPDATE triggerkit.consumers c SET gap = NULL, gap_at = NULL
WHERE gap IS NOT NULL AND database_id = %s AND NOT EXISTS (
    SELECT FROM jsonb_array_elements_text(c.definition -> 'tables') t (name)
    WHERE NOT EXISTS (
        SELECT FROM triggerkit.backfills b
        WHERE b.consumer_id = c.id AND b.state = 'completed' AND b.created_at >= c.gap_at
          AND b.lower_bound IS NULL AND b.upper_bound ->> 'until' IS NULL
          AND b.schema_name || '.' || b.table_name = t.name))
RETURNING name
"""


async def mark_gap(state: psycopg.AsyncConnection, consumer_ids: list[int], reason: str) -> None:
    """Show with the consumers that changes are missing, and why."""
    await state.execute(_MARK, [reason, consumer_ids])


async def close_gaps(state: psycopg.AsyncConnection, database_id: int) -> list[str]:
    """Clear the gaps of consumers whose tables were all read since; returns their names."""
    cursor = await state.execute(_CLOSE, [database_id])
    return [name for (name,) in await cursor.fetchall()]
