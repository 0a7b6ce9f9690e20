"""Pulled consumers: callers receive messages under a lease, and acknowledge or hand them back.

All of it is in Postgres, so that any number of processes may answer. A cursor's lease covers its
whole partition: what a caller holds of it, no other gets anything behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.pull import leases, parking
from triggerkit.consumers.pull.calls import Made, PulledFunctions
from triggerkit.consumers.pull.consumers import (
    Pulled,
    PulledConsumers,
    cursor_partition,
    require_active,
)
from triggerkit.consumers.pull.leases import LeasedMessages, read_ack_ids
from triggerkit.consumers.pull.reading import Changed
from triggerkit.consumers.pull.receive import Received, Receiving
from triggerkit.log.entry import PARTITIONS, Entry
from triggerkit.log.reader import STORED, entry_of_row
from triggerkit.state.channels import LOG

#: Entries of a partition looked through at once at most, when nobody wants those before.
MOST_SCANNED = 4000

#: Tries of one call over entries that nobody wants; then there is nothing yet.
MOST_TRIES = 25

#: The cursors of these leases, locked.
_LOCK = """
SELECT h.number, c.partition, c.position, c.batch_last, c.settled, c.attempt
FROM unnest(%s::smallint[], %s::text[]) WITH ORDINALITY AS h (partition, lease, number)
JOIN triggerkit.cursors c
    ON c.consumer_id = %s AND c.partition = h.partition AND c.batch_id = h.lease
ORDER BY c.partition FOR NO KEY UPDATE OF c
"""

_ENTRIES = f"""
SELECT {STORED} FROM triggerkit.events
WHERE database_id = %s AND partition = ANY (%s::smallint[]) AND position = ANY (%s::bigint[])
ORDER BY position
"""  # noqa: S608 - of constants

_RING = f"SELECT pg_notify('{LOG}', 'consumer ' || %s)"


class ConsumerIds(NamedTuple):
    """The ids of a consumer and its database, by which the notifier names it."""

    consumer_id: int
    database_id: int


class Puller:
    """The pulled consumers of one state database.

    Guarantee: a message is handed out again until it is acknowledged, or set aside for good; while
    a message of a key is leased or set aside, no later one of it is handed out.
    """

    def __init__(self, pool: AsyncConnectionPool) -> None:
        """`pool` has sessions as of `in_order`."""
        self._pool = pool
        self._consumers = PulledConsumers()

    async def close(self) -> None:
        """End the processes that call functions of consumers."""
        await self._consumers.close()

    async def place(self, name: str) -> ConsumerIds:
        """Find the consumer `name`.

        Raises:
            UnknownConsumer, NotPulled: see `PulledConsumers.get`.
        """
        async with self._pool.connection() as connection:
            consumer = (await self._consumers.get(connection, name)).consumer
        return ConsumerIds(consumer.id, consumer.database_id)

    async def receive(
        self, name: str, batch_size: int, is_gone: Callable[[], bool] = lambda: False
    ) -> Received:
        """Hand out at most `batch_size` messages, leased for the consumer's `timeout_s`.

        Does not wait for any, only for the consumer's functions. When `is_gone` says that the
        caller is, nothing is leased.

        Raises:
            UnknownConsumer: there is no such consumer.
            NotPulled: it is pushed, paused or disabled.
            ConfigurationError: a function of it cannot be loaded.
        """
        scan = batch_size
        made = Made()
        for _ in range(MOST_TRIES):
            functions = await self._functions_of(name)
            if functions is None:
                received = await self._called(name, batch_size, scan, is_gone, made)
            else:
                async with functions.in_turn() as is_mine:
                    if not is_mine:
                        return Received([], next_s=0.0)
                    received = await self._called(name, batch_size, scan, is_gone, made)
            if received.messages or not received.has_moved:
                return received
            if functions is not None and made.suffices:
                break
            made.forget()
            scan = min(4 * scan, MOST_SCANNED)
        return Received([], has_moved=True, next_s=0.0)

    async def _functions_of(self, name: str) -> PulledFunctions | None:
        known = self._consumers.known(name)
        if known is None:
            async with self._pool.connection() as connection:
                known = await self._consumers.read(connection, name)
        return known.functions

    async def _called(
        self, name: str, batch_size: int, scan: int, is_gone: Callable[[], bool], made: Made
    ) -> Received:
        """Try, and call functions in between, with no connection taken."""
        while True:
            received = await self._try(name, batch_size, scan, is_gone, made)
            if received.uncalled is None or is_gone():
                return received
            await made.add(received.uncalled)

    async def _try(
        self, name: str, batch_size: int, scan: int, is_gone: Callable[[], bool], made: Made
    ) -> Received:
        async with self._pool.connection() as connection:
            pulled = await self._consumers.get(connection, name)
            while True:
                if pulled.consumer.state != "active":
                    pulled = await self._consumers.read(connection, name)
                    require_active(pulled)
                receiving = Receiving(connection, pulled, batch_size, is_gone, made)
                try:
                    return await receiving.run(scan)
                except Changed:
                    pulled = await self._consumers.read(connection, name)

    async def ack(self, name: str, ack_ids: Sequence[str]) -> list[str]:
        """Note messages as done; they are not handed out again.

        Returns those of `ack_ids` whose lease is gone: their messages are handed out again, or
        are done already.

        Raises:
            UnknownConsumer, NotPulled: see `PulledConsumers.get`.
        """
        held, unknown = read_ack_ids(ack_ids)
        async with self._pool.connection() as connection:
            consumer = (await self._consumers.get(connection, name)).consumer
            in_log, aside = _apart(held)
            stale: list[LeasedMessages] = []
            if in_log:
                stale = await leases.acknowledge(
                    connection, consumer.id, consumer.database_id, in_log
                )
            if aside:
                stale += await parking.acknowledge(connection, consumer.id, aside)
                await connection.execute(_RING, [consumer.id])
            return await self._not_held(connection, name, stale, unknown)

    async def nack(self, name: str, ack_ids: Sequence[str], delay_s: float) -> list[str]:
        """Hand messages back: they are handed out again after `delay_s`, and those behind them of
        their keys after them. Returns those of `ack_ids` whose lease is gone.

        Raises:
            UnknownConsumer, NotPulled: see `PulledConsumers.get`.
        """
        held, unknown = read_ack_ids(ack_ids)
        async with self._pool.connection() as connection:
            pulled = await self._consumers.read(connection, name)
            in_log, aside = _apart(held)
            stale: list[LeasedMessages] = []
            if in_log:
                async with connection.transaction():
                    stale = await _set_aside(connection, pulled, in_log, delay_s)
            if aside:
                stale += await parking.hand_back(connection, pulled.consumer, aside, delay_s)
            # Those who wait do not know yet when it is due.
            await connection.execute(_RING, [pulled.consumer.id])
            return await self._not_held(connection, name, stale, unknown)

    async def extend(self, name: str, ack_ids: Sequence[str], seconds: float) -> list[str]:
        """Let the leases of these messages, and of all that were received with them in their
        partitions, last at least `seconds` from now. Returns those whose lease is gone.

        Raises:
            UnknownConsumer, NotPulled: see `PulledConsumers.get`.
        """
        held, unknown = read_ack_ids(ack_ids)
        async with self._pool.connection() as connection:
            consumer = (await self._consumers.get(connection, name)).consumer
            in_log, aside = _apart(held)
            stale: list[LeasedMessages] = []
            if in_log:
                stale = await leases.extend(connection, consumer.id, in_log, seconds)
            if aside:
                stale += await parking.extend(connection, consumer.id, aside, seconds)
            return await self._not_held(connection, name, stale, unknown)

    async def _not_held(
        self,
        connection: psycopg.AsyncConnection,
        name: str,
        stale: Sequence[LeasedMessages],
        unknown: list[str],
    ) -> list[str]:
        if stale or unknown:
            # Perhaps since there is no such consumer any more, or another one by its name.
            await self._consumers.read(connection, name)
        return [ack_id for one in stale for ack_id in one.ack_ids] + unknown


def _apart(held: Sequence[LeasedMessages]) -> tuple[list[LeasedMessages], list[LeasedMessages]]:
    """Leases of cursors, and those of messages that are set aside."""
    return [one for one in held if not one.is_parked], [one for one in held if one.is_parked]


async def _set_aside(
    connection: psycopg.AsyncConnection,
    pulled: Pulled,
    held: Sequence[LeasedMessages],
    delay_s: float,
) -> list[LeasedMessages]:
    """Take messages out of their leases, to be handed out again; returns what is stale."""
    consumer = pulled.consumer
    partitions, lease_ids = [one.partition for one in held], [one.lease for one in held]
    cursor = await connection.execute(_LOCK, [partitions, lease_ids, consumer.id])
    aside, again = [], []
    most = consumer.definition.max_attempts
    for number, partition, position, last, settled, attempt in await cursor.fetchall():
        given = {int(text) for text in held[number - 1].positions} - set(settled)
        positions = [one for one in given if position < one <= last]
        for entry in await _entries(connection, consumer.database_id, partition, positions):
            if entry.action == "truncate" and (most is None or attempt < most):
                # By itself in its lease: it stays in its place.
                again.append(held[number - 1])
                continue
            body = pulled.selection.message(entry)
            message = parking.handed_back(consumer, entry, body, delay_s)
            aside.append(message._replace(partition=cursor_partition(pulled, partition)))
    await leases.hand_back(connection, consumer.id, again, delay_s)
    await parking.put(connection, consumer.id, aside)
    await parking.arrange(connection, consumer.id, {message.key for message in aside})
    rest = [one for one in held if one not in again]
    return await leases.acknowledge(
        connection, consumer.id, consumer.database_id, rest, notify=False
    )


async def _entries(
    connection: psycopg.AsyncConnection, database_id: int, partition: int, positions: list[int]
) -> list[Entry]:
    partitions = list(range(PARTITIONS)) if partition < 0 else [partition]
    cursor = await connection.execute(_ENTRIES, [database_id, partitions, positions], binary=True)
    return [entry_of_row(row) for row in await cursor.fetchall()]
