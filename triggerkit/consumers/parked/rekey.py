"""Parked messages of a consumer that is ordered in another way than before."""

from __future__ import annotations

import psycopg

from triggerkit.consumers.consumer import ALL_PARTITIONS, group_key
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.parked.origin import COLUMNS, Origin
from triggerkit.consumers.parked.states import IN_THE_WAY
from triggerkit.log.entry import partition_of
from triggerkit.log.json_object import split_object
from triggerkit.message import row_text

#: Messages looked at in one statement.
PAGE = 500

_PAGE = f"""
SELECT partition, position, convert_to(body, 'UTF8'), {COLUMNS} FROM triggerkit.parked
WHERE consumer_id = %s AND position > %s ORDER BY position LIMIT %s
"""  # noqa: S608 - of constants

_SET = """
UPDATE triggerkit.parked SET key = %s, partition = %s
WHERE consumer_id = %s AND partition = %s AND position = %s
"""

_EARLIER = f"""
EXISTS (SELECT FROM triggerkit.parked e
    WHERE e.consumer_id = p.consumer_id AND hashtext(e.key) = hashtext(p.key) AND e.key = p.key
      AND e.position < p.position AND e.state IN {IN_THE_WAY})
"""

#: The first of each key is tried, the others wait.
_ARRANGE = f"""
UPDATE triggerkit.parked p SET due_at = clock_timestamp(),
    state = CASE WHEN state = 'waiting' THEN 'failing' ELSE 'waiting' END
WHERE consumer_id = %s AND ((state = 'waiting' AND NOT {_EARLIER})
    OR (state = 'failing' AND {_EARLIER}))
"""  # noqa: S608 - of constants


async def rekey(
    connection: psycopg.AsyncConnection, consumer_id: int, definition: ConsumerDefinition
) -> None:
    """Order the parked messages as `definition` groups them; in the transaction that changes it."""
    last = 0
    while True:
        cursor = await connection.execute(_PAGE, [consumer_id, last, PAGE], binary=True)
        page = await cursor.fetchall()
        if not page:
            break
        rows = []
        for partition, position, body, *known in page:
            origin = Origin.in_body(body) if known[0] is None else Origin(*known)
            key, belongs_in = _place(body, origin, definition.group_by)
            rows.append([key, belongs_in, consumer_id, partition, position])
        async with connection.cursor() as many:
            await many.executemany(_SET, rows)
        last = page[-1][1]
    await connection.execute(_ARRANGE, [consumer_id])


def _place(body: bytes, origin: Origin, group_by: tuple[str, ...] | None) -> tuple[str, int]:
    """Return the key of a message, as `Consumer.key_of` has it for its entry, and its partition."""
    if group_by is not None:
        record = split_object(body)["record"]
        return group_key(b"{}" if record == b"null" else record, group_by), ALL_PARTITIONS
    _, schema, table, key = origin
    return row_text(schema, table, key), partition_of(schema, table, key)
