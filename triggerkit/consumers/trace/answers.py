"""The last answers of endpoints to what was pushed to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from triggerkit.log.entry import PARTITIONS

#: The last of each consumer and partition by their index, then merged.
_LAST = """
SELECT e.name AS endpoint, c.name AS consumer, a.first_position, a.last_position, a.messages,
    a.attempt, a.sent_at, a.answered_at, a.status, a.error
FROM triggerkit.endpoints e CROSS JOIN LATERAL (
    SELECT d.* FROM triggerkit.consumers k
    CROSS JOIN generate_series(-1, %(last_partition)s) p CROSS JOIN LATERAL (
        SELECT * FROM triggerkit.deliveries
        WHERE consumer_id = k.id AND partition = p
        ORDER BY last_position DESC LIMIT %(limit)s) d
    WHERE k.endpoint_id = e.id ORDER BY d.sent_at DESC, d.id DESC LIMIT %(limit)s) a
JOIN triggerkit.consumers c ON c.id = a.consumer_id
WHERE %(name)s::text IS NULL OR e.name = %(name)s
ORDER BY e.name, a.sent_at DESC, a.id DESC
"""


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """One attempt to push a batch, and what came back. `status` is None when nothing did."""

    endpoint: str
    consumer: str
    first_position: int
    last_position: int
    messages: int
    attempt: int
    sent_at: datetime
    answered_at: datetime | None
    status: int | None
    error: str | None

    @property
    def is_taken(self) -> bool:
        """Return whether the endpoint took it."""
        return self.status is not None and 200 <= self.status <= 299


async def last_answers(
    connection: psycopg.AsyncConnection, endpoint: str | None = None, *, limit: int = 10
) -> dict[str, list[EndpointAnswer]]:
    """Return the last `limit` attempts of each endpoint, or of one, the newest first."""
    given = {"last_partition": PARTITIONS - 1, "limit": limit, "name": endpoint}
    async with connection.cursor(row_factory=class_row(EndpointAnswer)) as cursor:
        rows = await (await cursor.execute(_LAST, given)).fetchall()
    found: dict[str, list[EndpointAnswer]] = {}
    for answer in rows:
        found.setdefault(answer.endpoint, []).append(answer)
    return found
