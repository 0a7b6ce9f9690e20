"""A consumer that is pulled, and a log that is filled without a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg import sql

from triggerkit.change import Action, RowChange, Transaction
from triggerkit.consumers.declare.manage import partitions_of
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.receive import Received
from triggerkit.consumers.pull.service import Puller
from triggerkit.log.entry import Pending, partition_of
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn
from triggerkit.state.connect import pool

NAME = "items"


def add_consumer(url: str, definition: ConsumerDefinition) -> None:
    """Make a database and a consumer of it without an endpoint."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name, "
            "system_identifier) VALUES ('d', 's', 'p', '7')"
        )
        connection.execute(
            "INSERT INTO triggerkit.consumers (name, database_id, kind, definition) "
            "VALUES (%s, 1, 'changes', %s)",
            [NAME, orjson.dumps(definition.as_json()).decode()],
        )
        for partition in partitions_of(definition):
            connection.execute("INSERT INTO triggerkit.cursors VALUES (1, %s, 0)", [partition])


@dataclass(slots=True)
class Message:
    """A message as it was received."""

    ack_id: str
    json: dict[str, Any]

    @property
    def id(self) -> int:
        """Its row's id."""
        return int(self.json["record"]["id"])

    @property
    def version(self) -> int:
        """How many changes of all rows there were before it."""
        return int(self.json["record"]["v"])

    @property
    def idempotency_key(self) -> str:
        """What makes it the same when it comes again."""
        return str(self.json["metadata"]["idempotency_key"])


def messages(received: Received) -> list[Message]:
    """What was received, as a caller reads it."""
    return [Message(m["ack_id"], m) for m in orjson.loads(received.body())["data"]]


def same_partition(count: int, like: int = 1) -> list[int]:
    """The first rows that share the partition of row `like`, itself among them."""
    partition = partition_of("public", "items", f'["{like}"]')
    found = [n for n in range(1, 5000) if partition_of("public", "items", f'["{n}"]') == partition]
    return found[:count]


def ids(received: list[Message]) -> list[int]:
    """The rows' ids of what was received, in order."""
    return [message.id for message in received]


@dataclass
class Pulling:
    """Calls of one consumer, the log behind it, and the state beside it."""

    url: str
    puller: Puller
    logged: int = 0

    async def log(self, ids: Sequence[int], action: Action = "insert", **columns: Any) -> None:
        """Append a change of each of these rows, as one transaction."""
        async with LogWriter.open(self.url, 1) as writer:
            transaction = Transaction(Lsn(self.logged + 1), "2026-10-28T21:39:21.127470Z", 7)
            for index, row in enumerate(ids):
                record = {"id": row, "v": self.logged + index, **columns}
                change = RowChange("public", "items", action, (str(row),), record)
                writer.write(Pending(transaction, index, change, 7))
            await writer.commit(self.logged + len(ids))
        self.logged += len(ids)

    async def receive(self, batch_size: int = 100) -> list[Message]:
        """Receive without waiting."""
        return messages(await self.puller.receive(NAME, batch_size))

    async def ack(self, given: Sequence[Message]) -> list[str]:
        """Acknowledge; the stale ids."""
        return await self.puller.ack(NAME, [message.ack_id for message in given])

    async def nack(self, given: Sequence[Message], delay_s: float = 0.0) -> list[str]:
        """Hand back; the stale ids."""
        return await self.puller.nack(NAME, [message.ack_id for message in given], delay_s)

    async def expire(self) -> None:
        """Let the time of every lease be over, without waiting for it."""
        await self.execute("UPDATE triggerkit.cursors SET lease_until = clock_timestamp()")
        await self.execute(
            "UPDATE triggerkit.parked SET due_at = clock_timestamp() WHERE state = 'failing'"
        )

    async def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on the state; its rows, if it has any."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as state:
            cursor = await state.execute(sql.SQL(statement))
            return await cursor.fetchall() if cursor.description else []

    async def parked(self) -> list[tuple[Any, ...]]:
        """Position, state and attempts of what is set aside, in order."""
        return await self.execute(
            "SELECT position, state, attempts FROM triggerkit.parked ORDER BY position"
        )


@asynccontextmanager
async def pulling(url: str, definition: ConsumerDefinition | None = None) -> AsyncIterator[Pulling]:
    """A pulled consumer of `public.items`, its log empty."""
    add_consumer(url, definition or changes("items"))
    async with pool(in_order(url), "test", size=8) as connections:
        puller = Puller(connections)
        try:
            yield Pulling(url, puller)
        finally:
            await puller.close()
