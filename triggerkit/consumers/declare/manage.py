"""Making, changing, pausing, rewinding and deleting consumers: what apply, commands and API do.

Each call notifies the stream, which takes it in while it runs, and leaves a line in the audit.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from triggerkit.consumers.consumer import ALL_PARTITIONS
from triggerkit.consumers.cursors.store import LOCK_CURSORS
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.plan import Stored
from triggerkit.consumers.declare.rewind import Rewound, rewind
from triggerkit.consumers.definition import BEGINNING, END, ConsumerDefinition, TableName
from triggerkit.consumers.gap import accept_gaps
from triggerkit.consumers.parked.rekey import rekey
from triggerkit.errors import (
    ChangedMeanwhile,
    ConfigurationError,
    DeclaredElsewhere,
    UnknownConsumer,
)
from triggerkit.log.entry import PARTITIONS
from triggerkit.state.audit import note
from triggerkit.state.channels import notify_consumers

_INSERT = """
INSERT INTO triggerkit.consumers (name, database_id, endpoint_id, kind, definition, managed_by,
    state, replay_from)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""

_UPDATE = """
UPDATE triggerkit.consumers SET endpoint_id = %s, kind = %s, definition = %s, managed_by = %s
WHERE id = %s
"""

#: A new consumer starts at the log's head; what existed before comes by its backfill.
_INSERT_CURSORS = """
INSERT INTO triggerkit.cursors (consumer_id, partition, position)
SELECT %s, p, d.next_position - 1
FROM triggerkit.databases d, unnest(%s::int[]) p WHERE d.id = %s
"""

#: The consumer's places in other partitions than before: all at the one furthest back.
_MOVE_CURSORS = """
WITH before AS (DELETE FROM triggerkit.cursors WHERE consumer_id = %s RETURNING position)
INSERT INTO triggerkit.cursors (consumer_id, partition, position)
SELECT %s, p, (SELECT min(position) FROM before) FROM unnest(%s::int[]) p
"""

#: Ends what is under way: a lane and a caller that receives remember it in different ways. It comes
#: again.
_END_BATCHES = """
UPDATE triggerkit.cursors SET batch_id = NULL, batch_last = NULL, attempt = 0, lease_until = NULL,
    leased = 0, settled = '{}'
WHERE consumer_id = %s
"""

#: Waits for those who park a message at this moment: it would be left with a key that is no more.
_FENCE = "UPDATE triggerkit.cursors SET position = position WHERE consumer_id = %s"

_INSERT_BACKFILL = """
INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, sort_column, lower_bound)
VALUES (%s, %s, %s, %s, %s)
"""

#: Ends the reading of a table for a consumer that does not follow it any more.
_END_BACKFILLS = """
UPDATE triggerkit.backfills SET state = 'canceled', finished_at = clock_timestamp(), error = %s
WHERE consumer_id = %s AND schema_name = %s AND table_name = %s
  AND state IN ('active', 'paused', 'failed')
"""

#: Forgets the endpoint of a task's route when no consumer pushes to it any more.
_DELETE_UNUSED = """
DELETE FROM triggerkit.endpoints e WHERE name = %s AND managed_by = 'code'
    AND NOT EXISTS (SELECT FROM triggerkit.consumers c WHERE c.endpoint_id = e.id)
"""

_FIND = """
SELECT c.id, c.name, c.definition, c.state, c.managed_by, c.replay_from, e.name
FROM triggerkit.consumers c LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
WHERE c.name = %s
"""

_LOCK = "SELECT FROM triggerkit.consumers WHERE id = %s FOR UPDATE"


class Consumers:
    """Changes consumers on behalf of `actor`, such as "apply" or "api"."""

    def __init__(self, state: psycopg.AsyncConnection, actor: str) -> None:
        self._state = state
        self._actor = actor

    async def find(self, name: str) -> Stored:
        """Return the consumer of this name.

        Raises:
            UnknownConsumer: there is none; the message names those that exist.
        """
        cursor = await self._state.execute(_FIND, [name])
        row = await cursor.fetchone()
        if row is None:
            cursor = await self._state.execute("SELECT name FROM triggerkit.consumers ORDER BY 1")
            raise UnknownConsumer(name, [known for (known,) in await cursor.fetchall()])
        id_, name, definition, *rest = row
        return Stored(id_, name, ConsumerDefinition.from_json(definition), *rest)

    async def create(self, database_id: int, declared: Declared, endpoint_id: int | None) -> int:
        """Make a consumer with its cursors and, unless it starts at the end, its backfills."""
        definition = declared.definition
        replay_from = definition.replay_from
        async with self._state.transaction():
            cursor = await self._state.execute(
                _INSERT,
                [
                    declared.name,
                    database_id,
                    endpoint_id,
                    definition.kind,
                    Jsonb(definition.as_json()),
                    declared.managed_by,
                    "paused" if definition.paused else "active",
                    # A new consumer has nothing to repeat.
                    None if replay_from is None else str(replay_from),
                ],
            )
            row = await cursor.fetchone()
            assert row is not None
            consumer_id = int(row[0])
            partitions = partitions_of(definition)
            await self._state.execute(_INSERT_CURSORS, [consumer_id, partitions, database_id])
            await self._start_backfills(consumer_id, definition, definition.table_names)
            await self._note("create", declared.name, definition.as_json())
        return consumer_id

    async def require_same(self, stored: Stored) -> None:
        """Have nobody else change a consumer until the transaction ends, that is still as it was
        found.

        Raises:
            ChangedMeanwhile: somebody was quicker.
        """
        await self._state.execute(_LOCK, [stored.id])
        now = await self.find(stored.name)
        if (now.id, now.definition, now.endpoint) != (
            stored.id,
            stored.definition,
            stored.endpoint,
        ):
            raise ChangedMeanwhile(
                f"consumer {stored.name} was changed by somebody else at the same time; look at it "
                "again, then change it"
            )

    async def change(self, stored: Stored, declared: Declared, endpoint_id: int | None) -> None:
        """Give a consumer another definition. Tables new to it are read as `start` says; of those
        it does not follow any more, no more is read."""
        before, after = stored.definition, declared.definition
        async with self._state.transaction():
            await self._state.execute(
                _UPDATE,
                [
                    endpoint_id,
                    after.kind,
                    Jsonb(after.as_json()),
                    declared.managed_by,
                    stored.id,
                ],
            )
            await self._state.execute(LOCK_CURSORS, [stored.id])
            is_pulled = endpoint_id is None and not after.has_own_way
            if is_pulled != stored.is_pulled:
                await self._state.execute(_END_BATCHES, [stored.id])
            await self._state.execute(_DELETE_UNUSED, [stored.endpoint])
            partitions = partitions_of(after)
            if partitions != partitions_of(before):
                await self._state.execute(_MOVE_CURSORS, [stored.id, stored.id, partitions])
            if after.group_by != before.group_by:
                await self._state.execute(_FENCE, [stored.id])
                await rekey(self._state, stored.id, after)
            added = [t for t in after.table_names if t not in before.table_names]
            await self._start_backfills(stored.id, after, added)
            for table in before.table_names:
                if table not in after.table_names:
                    reason = f"{stored.name} does not follow {table} any more"
                    await self._state.execute(_END_BACKFILLS, [reason, stored.id, *table])
            await self._note("change", stored.name, after.as_json())

    async def remember(self, stored: Stored, declared: Declared) -> None:
        """Store a definition that differs in what has a step of its own, and is done already."""
        await self._state.execute(
            "UPDATE triggerkit.consumers SET definition = %s WHERE id = %s",
            [Jsonb(declared.definition.as_json()), stored.id],
        )

    async def pause(self, stored: Stored) -> None:
        """Deliver nothing more until it is resumed; what happens meanwhile stays in the log."""
        await self._set_state(stored, "paused", "pause")

    async def resume(self, stored: Stored) -> None:
        """Deliver again, from where it was paused or disabled."""
        async with self._state.transaction():
            await self._state.execute(
                "UPDATE triggerkit.endpoints SET disabled_at = NULL WHERE name = %s",
                [stored.endpoint],
            )
            await self._set_state(stored, "active", "resume")

    async def accept_gap(self, stored: Stored, table: str | None = None) -> int:
        """Close the consumer's gaps, or those of one table, though nothing was read anew; how many.

        Raises:
            ConfigurationError: there is none.
        """
        async with self._state.transaction():
            count = await accept_gaps(self._state, stored.id, self._actor, table)
            if not count:
                of_table = "" if table is None else f" of {table}"
                raise ConfigurationError(
                    f"consumer {stored.name} has no open gap{of_table}; those that are: "
                    f"triggerkit consumers show {stored.name}"
                )
            await self._note("accept gap", stored.name, {"table": table})
        return count

    async def replay(self, stored: Stored, to: str | int | float) -> Rewound:
        """Deliver again from `to` on; see `rewind`."""
        async with self._state.transaction():
            rewound = await rewind(self._state, stored.id, to)
            await self._note("replay", stored.name, {"from": to})
        return rewound

    async def replay_declared(self, stored: Stored, to: str | int | float) -> Rewound:
        """`replay` once for a declaration's `replay_from`."""
        async with self._state.transaction():
            rewound = await self.replay(stored, to)
            await self._state.execute(
                "UPDATE triggerkit.consumers SET replay_from = %s WHERE id = %s",
                [str(to), stored.id],
            )
        return rewound

    async def delete(self, stored: Stored) -> None:
        """Forget a consumer: its places in the log, its parked messages and its deliveries."""
        async with self._state.transaction():
            await self._state.execute("DELETE FROM triggerkit.consumers WHERE id = %s", [stored.id])
            await self._state.execute(_DELETE_UNUSED, [stored.endpoint])
            await self._note("delete", stored.name, None)

    async def _set_state(self, stored: Stored, state: str, action: str) -> None:
        async with self._state.transaction():
            await self._state.execute(
                "UPDATE triggerkit.consumers SET state = %s, last_error = NULL WHERE id = %s",
                [state, stored.id],
            )
            await self._note(action, stored.name, None)

    async def _start_backfills(
        self, consumer_id: int, definition: ConsumerDefinition, tables: list[TableName] | Any
    ) -> None:
        if definition.start == END:
            return
        lower = None if definition.start == BEGINNING else Jsonb([str(definition.start)])
        for table in tables:
            await self._state.execute(
                _INSERT_BACKFILL,
                [consumer_id, table.schema, table.name, definition.sort_by, lower],
            )

    async def _note(self, action: str, name: str, detail: dict[str, Any] | None) -> None:
        await note(self._state, self._actor, action, f"consumer {name}", detail)
        await notify_consumers(self._state)


def partitions_of(definition: ConsumerDefinition) -> list[int]:
    """Return the partitions that a consumer has a cursor for."""
    return list(range(PARTITIONS)) if definition.group_by is None else [ALL_PARTITIONS]


def only_api(stored: Stored) -> None:
    """Refuse to edit what is declared elsewhere: the next `apply` would undo it.

    Raises:
        DeclaredElsewhere: it is declared in code or in the file.
    """
    places = {"code": "in code, by a task's on=", "file": "in triggerkit.toml"}
    if stored.managed_by in places:
        raise DeclaredElsewhere(
            f"consumer {stored.name} is declared {places[stored.managed_by]}; change it there and "
            "run: triggerkit apply"
        )


async def cursors_of(state: psycopg.AsyncConnection, consumer_id: int) -> list[dict[str, int]]:
    """Return a consumer's place in each partition of the log; partition -1 stands for all."""
    cursor = await state.execute(
        "SELECT partition, position FROM triggerkit.cursors WHERE consumer_id = %s ORDER BY 1",
        [consumer_id],
    )
    return [{"partition": p, "position": position} for p, position in await cursor.fetchall()]
