"""A pulled consumer as the state has it at this moment, and the process of its functions."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from triggerkit.consumers.consumer import ALL_PARTITIONS, BackfillSpan, Consumer, PastSlot
from triggerkit.consumers.cursors.known import read_past_slots
from triggerkit.consumers.definition import IS_PULLED, ConsumerDefinition
from triggerkit.consumers.parked.states import IN_THE_WAY
from triggerkit.consumers.pull.calls import PulledFunctions, names_of
from triggerkit.consumers.selection import Selection
from triggerkit.errors import TriggerkitError, UnknownConsumer

#: All that a message of the consumer depends on, so that two equal rows are the same consumer; and
#: last, apart from that, whether any message of it is set aside.
FIND = f"""
SELECT c.id, c.name, c.definition::text, c.replay_epoch, c.state, c.database_id, d.name,
       d.hostname, d.slot_epoch, d.system_identifier, {IS_PULLED},
       (SELECT coalesce(jsonb_agg(jsonb_build_array(b.schema_name, b.table_name, b.first_position,
                                                    b.last_position) ORDER BY b.id), '[]')::text
        FROM triggerkit.backfills b WHERE b.consumer_id = c.id AND b.first_position IS NOT NULL),
       EXISTS (SELECT FROM triggerkit.parked p
               WHERE p.consumer_id = c.id AND p.state IN {IN_THE_WAY})
FROM triggerkit.consumers c JOIN triggerkit.databases d ON d.id = c.database_id
WHERE c.name = %s
"""  # noqa: S608 - of constants

#: The log is read on from a place, by its index and in its order, however much is behind it; one
#: plan for each statement. JIT would compile for longer than any of them takes.
_OPTIONS = (
    "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off -c jit=off "
    "-c plan_cache_mode=force_generic_plan"
)

#: A row of `FIND` without its last column.
Found = tuple[Any, ...]


def in_order(dsn: str) -> str:
    """`dsn` for the sessions of a `Puller`."""
    options = f"{conninfo_to_dict(dsn).get('options') or ''} {_OPTIONS}".strip()
    return make_conninfo(dsn, options=options)


class NotPulled(TriggerkitError):
    """The consumer has an endpoint, or is not active; the message says what to do."""


class Pulled(NamedTuple):
    """A pulled consumer: its definition, what it gets, and the row it was made of; `functions` is
    None where it names none."""

    consumer: Consumer
    selection: Selection
    found: Found
    functions: PulledFunctions | None

    @property
    def is_ordered_as_a_whole(self) -> bool:
        """Return whether it has one cursor for all partitions."""
        return self.consumer.definition.group_by is not None


class PulledConsumers:
    """The pulled consumers that were asked for, by name."""

    def __init__(self) -> None:
        self._known: dict[str, Pulled] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End the processes of functions."""
        for name in list(self._known):
            self._forget(name)
        await asyncio.gather(*self._closing)

    async def get(self, connection: psycopg.AsyncConnection, name: str) -> Pulled:
        """Return the consumer as it was when it was last read.

        Raises:
            UnknownConsumer: the state has none of this name.
            NotPulled: it is pushed.
        """
        known = self._known.get(name)
        return known or await self.read(connection, name)

    def known(self, name: str) -> Pulled | None:
        """Return the consumer as it was when it was last read, if it was."""
        return self._known.get(name)

    async def read(self, connection: psycopg.AsyncConnection, name: str) -> Pulled:
        """Return the consumer as it is now; raises as `get` does."""
        cursor = await connection.execute(FIND, [name])
        row = await cursor.fetchone()
        if row is None:
            self._forget(name)
            cursor = await connection.execute("SELECT name FROM triggerkit.consumers ORDER BY 1")
            raise UnknownConsumer(name, [known for (known,) in await cursor.fetchall()])
        found = row[:-1]
        known = self._known.get(name)
        if known is not None and known.found == found:
            return known
        # There is another one whenever the slot's epoch, which is in `found`, is another.
        past_slots = await read_past_slots(connection, found[5])
        consumer = _consumer(found, past_slots)
        known = self._known.get(name)
        functions = None if known is None else known.functions
        if functions is None or functions.names != names_of(consumer):
            self._forget(name)
            functions = PulledFunctions(names_of(consumer)) if any(names_of(consumer)) else None
        known = self._known[name] = Pulled(consumer, Selection(consumer), found, functions)
        return known

    def _forget(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is not None and known.functions is not None:
            closing = asyncio.create_task(known.functions.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def require_active(pulled: Pulled) -> None:
    """Refuse to hand out messages of a consumer that does not run.

    Raises:
        NotPulled: it is paused or disabled.
    """
    consumer = pulled.consumer
    if consumer.state != "active":
        raise NotPulled(
            f"consumer {consumer.name} is {consumer.state}; "
            f"run: triggerkit consumers resume {consumer.name}"
        )


def cursor_partition(pulled: Pulled, partition: int) -> int:
    """Return the partition of the cursor that an entry of `partition` is under."""
    return ALL_PARTITIONS if pulled.is_ordered_as_a_whole else partition


def _consumer(found: Found, past_slots: tuple[PastSlot, ...]) -> Consumer:
    (
        consumer_id, name, definition, replay_epoch, state, database_id, database_name, hostname,
        slot_epoch, system_identifier, is_pulled, spans,
    ) = found  # fmt: skip
    known = ConsumerDefinition.from_json(orjson.loads(definition))
    if known.is_direct:
        raise NotPulled(f"consumer {name} makes runs directly; only one without a task is pulled")
    if known.is_kafka:
        raise NotPulled(f"consumer {name} writes events into Kafka; read its topics instead")
    if not is_pulled:
        raise NotPulled(f"consumer {name} is pushed to an endpoint; only one without can be pulled")
    return Consumer(
        id=consumer_id,
        name=name,
        definition=known,
        replay_epoch=replay_epoch,
        state=state,
        database_id=database_id,
        database_name=database_name,
        database_host=hostname,
        database_epoch=slot_epoch,
        system_identifier=system_identifier,
        target=None,
        spans=tuple(
            BackfillSpan((schema, table), first, last)
            for schema, table, first, last in orjson.loads(spans)
        ),
        past_slots=past_slots,
    )
