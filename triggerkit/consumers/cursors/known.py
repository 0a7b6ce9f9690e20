"""Load the consumers of a database, with what was read for them and captured before."""

from __future__ import annotations

import asyncio

from triggerkit.consumers.consumer import BackfillSpan, Consumer, PastSlot
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.endpoints.model import COLUMNS, SealedEndpoint
from triggerkit.errors import UnknownConsumer
from triggerkit.state.reading import Reads, rows_of

_CONSUMERS = f"""
SELECT c.id, c.name, c.definition, c.replay_epoch, c.state, c.database_id, d.name AS database_name,
       d.hostname, d.slot_epoch, d.system_identifier, {COLUMNS}
FROM triggerkit.consumers c
JOIN triggerkit.databases d ON d.id = c.database_id
LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
WHERE c.database_id = %s ORDER BY c.id
"""  # noqa: S608 - of constants

_SPANS = """
SELECT consumer_id, schema_name, table_name, first_position, last_position
FROM triggerkit.backfills
WHERE first_position IS NOT NULL AND consumer_id IN (
    SELECT id FROM triggerkit.consumers WHERE database_id = %s)
"""

_PAST_SLOTS = """
SELECT next_position, epoch, system_identifier FROM triggerkit.past_slots
WHERE database_id = %s ORDER BY epoch
"""


async def read_consumers(reads: Reads, database_id: int, name: str | None = None) -> list[Consumer]:
    """Return all consumers of a database, or the one that is named.

    Raises:
        UnknownConsumer: none is named so.
    """
    spanned, past_slots, found = await asyncio.gather(
        rows_of(reads, _SPANS, [database_id]),
        read_past_slots(reads, database_id),
        rows_of(reads, _CONSUMERS, [database_id]),
    )
    spans: dict[int, list[BackfillSpan]] = {}
    for consumer_id, schema, table, first, last in spanned:
        span = BackfillSpan((schema, table), first, last)
        spans.setdefault(consumer_id, []).append(span)
    consumers = [
        Consumer(
            id=consumer_id,
            name=name,
            definition=ConsumerDefinition.from_json(definition),
            replay_epoch=replay_epoch,
            state=state,
            database_id=of_database,
            database_name=database_name,
            database_host=hostname,
            database_epoch=slot_epoch,
            system_identifier=system,
            target=None if endpoint[0] is None else SealedEndpoint(*endpoint),
            spans=tuple(spans.get(consumer_id, ())),
            past_slots=past_slots,
        )
        for (
            consumer_id, name, definition, replay_epoch, state, of_database,
            database_name, hostname, slot_epoch, system, *endpoint,
        ) in found
    ]  # fmt: skip
    named = [consumer for consumer in consumers if name in (None, consumer.name)]
    if name is not None and not named:
        raise UnknownConsumer(name, sorted(consumer.name for consumer in consumers))
    return named


async def read_past_slots(connection: Reads, database_id: int) -> tuple[PastSlot, ...]:
    """Return the slots of the database that others took the place of, in their order."""
    found = await rows_of(connection, _PAST_SLOTS, [database_id])
    return tuple(map(PastSlot._make, found))
