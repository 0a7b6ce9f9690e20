"""How far consumers of a log on Kafka are behind, as the stream counted it last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from triggerkit.log.entry import PARTITIONS
from triggerkit.state.reading import Reads, rows_of

#: What the stream counted in a log on Kafka, from the cursors on; what it did not is estimated.
_LAGS: Final = """
SELECT c.id, sum(n.messages)::bigint,
    min(coalesce(l.oldest_at, e.looked_at, clock_timestamp())) FILTER (WHERE n.messages > 0)
FROM triggerkit.databases d
JOIN triggerkit.consumers c ON c.database_id = d.id
JOIN triggerkit.cursors k ON k.consumer_id = c.id
LEFT JOIN triggerkit.log_extents e ON e.database_id = d.id AND e.partition = k.partition
LEFT JOIN triggerkit.log_lags l
    ON l.consumer_id = c.id AND l.partition = k.partition AND l.position <= k.position
CROSS JOIN LATERAL (SELECT coalesce(e.last_position, d.next_position - 1) - k.position) b (behind)
CROSS JOIN LATERAL (SELECT CASE WHEN b.behind <= 0 THEN 0
    ELSE coalesce(l.messages, ceil(b.behind / %s::numeric)) END) n (messages)
WHERE d.log = 'kafka' GROUP BY c.id
"""


class CountedLag(NamedTuple):
    """Messages that a consumer has not got, and since when."""

    lag_messages: int
    lag_seconds: float
    oldest_undelivered_at: datetime | None


async def counted_lags(connection: Reads) -> dict[int, CountedLag]:
    """Return the lags of all consumers of logs on Kafka, by consumer."""
    now = datetime.now(UTC)
    return {
        consumer_id: CountedLag(
            messages, 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()), oldest
        )
        for consumer_id, messages, oldest in await rows_of(connection, _LAGS, [PARTITIONS])
    }
