"""Starting, pausing, resuming, canceling and listing backfills: what commands and the API do.

Each change is one transaction with a line in `triggerkit.audit`, and wakes the stream, which does
what the state says. A partial backfill reads the rows whose sort value is at or after `from_` and
before `until`, so that consecutive ranges meet without an overlap; rows without a sort value are
in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from triggerkit.consumers.backfill.source import BackfillSource, source_of
from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.errors import ConfigurationError, TriggerkitError, UnknownConsumer
from triggerkit.state.audit import note
from triggerkit.state.channels import notify_consumers

State = Literal["active", "paused", "canceled", "failed", "completed"]

#: The consumer's row is locked, so that two starts at once do not both find no open backfill.
_CONSUMER = "SELECT id, definition FROM triggerkit.consumers WHERE name = %s FOR NO KEY UPDATE"

#: What is neither complete nor canceled can still be read on.
_OPEN = """
SELECT id, state FROM triggerkit.backfills
WHERE consumer_id = %s AND schema_name = %s AND table_name = %s AND id <> %s
  AND state IN ('active', 'paused', 'failed')
"""

_INSERT = """
INSERT INTO triggerkit.backfills
    (consumer_id, schema_name, table_name, sort_column, lower_bound, upper_bound, rows_per_s)
VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id
"""

_STATE = """
SELECT b.state, b.consumer_id, c.name, b.schema_name, b.table_name FROM triggerkit.backfills b
JOIN triggerkit.consumers c ON c.id = b.consumer_id WHERE b.id = %s
"""

_LOCK_CONSUMER = "SELECT FROM triggerkit.consumers WHERE id = %s FOR NO KEY UPDATE"

#: Pausing and canceling leave the span open: the stream closes it where its reading ended.
_PAUSE = "UPDATE triggerkit.backfills SET state = 'paused' WHERE id = %s AND state = ANY (%s)"
_RESUME = """
UPDATE triggerkit.backfills SET state = 'active', error = NULL WHERE id = %s AND state = ANY (%s)
"""
_CANCEL = """
UPDATE triggerkit.backfills SET state = 'canceled', finished_at = clock_timestamp()
WHERE id = %s AND state = ANY (%s)
"""

_LIST = """
SELECT b.id, c.name AS consumer, triggerkit.table_text(b.schema_name, b.table_name) AS table,
    b.sort_column AS sort_by, b.lower_bound ->> 0 AS from_, b.upper_bound ->> 'until' AS until,
    b.rows_per_s AS limit_rows_per_s, b.state, b.rows_read, b.rows_logged, b.rows_estimated,
    CASE b.state WHEN 'active' THEN (b.cursor ->> 'rows_per_s')::float END AS rows_per_s,
    b.error, b.created_at, b.finished_at
FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id
WHERE %(all)s OR b.state IN ('active', 'paused', 'failed')
ORDER BY b.id
"""


class Started(NamedTuple):
    """A backfill that was started, and what is to be said about it."""

    id: int
    table: TableName
    warning: str | None


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """A backfill and how far it is. `rows_per_s` is its rate lately, None while it is not read."""

    id: int
    consumer: str
    table: str
    sort_by: str | None
    from_: str | None
    until: str | None
    limit_rows_per_s: int | None
    state: State
    rows_read: int
    rows_logged: int
    rows_estimated: int
    rows_per_s: float | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def percent(self) -> float:
        """Return how much is read; the total is an estimate, so 100 only when it is complete."""
        if self.state == "completed":
            return 100.0
        return min(99.9, 100 * self.rows_read / max(self.rows_estimated, self.rows_read, 1))

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is complete, at its rate; None where nothing tells."""
        if self.state != "active" or not self.rows_per_s:
            return None
        return max(0, self.rows_estimated - self.rows_read) / self.rows_per_s


class BackfillStore:
    """The backfills in the state, changed on behalf of `actor`, such as "cli" or "api"."""

    def __init__(self, state: psycopg.AsyncConnection, actor: str) -> None:
        self._state = state
        self._actor = actor

    async def start(
        self,
        source: psycopg.AsyncConnection,
        consumer: str,
        tables: Iterable[TableName] | None = None,
        *,
        sort_by: str | None = None,
        from_: str | None = None,
        until: str | None = None,
        rows_per_s: int | None = None,
    ) -> list[Started]:
        """Start reading `tables` (all of the consumer's) by `sort_by` (the consumer's own).

        `source` is the database that has the tables. All or none are started.

        Raises:
            UnknownConsumer: there is none of this name.
            ConfigurationError: a table, column or bound does not fit.
            TriggerkitError: a backfill of one of the tables is open already.
        """
        if rows_per_s is not None and rows_per_s < 1:
            raise ConfigurationError("rows per second must be at least 1")
        async with self._state.transaction():
            consumer_id, definition = await self._consumer(consumer)
            sort_by = sort_by or definition.sort_by
            started = []
            for table in _chosen(consumer, definition, tables):
                await self._refuse_second(consumer_id, consumer, table)
                found = await source_of(source, table, sort_by, from_, until)
                backfill_id = await self._insert(consumer_id, found, sort_by, rows_per_s)
                started.append(Started(backfill_id, table, found.warning))
                detail = {"backfill": backfill_id, "table": str(table), "sort_by": sort_by}
                bounds = {"from": found.lower, "until": found.until, "rows_per_s": rows_per_s}
                await self._note("backfill start", consumer, {**detail, **bounds})
        return started

    async def pause(self, backfill_id: int) -> None:
        """Read no more after the chunk in flight, until it is resumed.

        Raises:
            TriggerkitError: there is no such backfill, or it is not active.
        """
        await self._change(backfill_id, "pause", _PAUSE, ("active",))

    async def resume(self, backfill_id: int) -> None:
        """Go on from where it was paused, or failed.

        Raises:
            TriggerkitError: there is no such backfill, or it is neither paused nor failed.
        """
        await self._change(backfill_id, "resume", _RESUME, ("paused", "failed"))

    async def cancel(self, backfill_id: int) -> None:
        """Read no more, for good. What was read stays in the log and is delivered.

        Raises:
            TriggerkitError: there is no such backfill, or it ended already.
        """
        await self._change(backfill_id, "cancel", _CANCEL, ("active", "paused", "failed"))

    async def list(self, *, all_: bool = False) -> list[BackfillProgress]:
        """Return those that are open, or all that ever were, in the order of their start."""
        async with self._state.cursor(row_factory=class_row(BackfillProgress)) as cursor:
            await cursor.execute(_LIST, {"all": all_})
            return await cursor.fetchall()

    async def _consumer(self, name: str) -> tuple[int, ConsumerDefinition]:
        cursor = await self._state.execute(_CONSUMER, [name])
        row = await cursor.fetchone()
        if row is None:
            cursor = await self._state.execute("SELECT name FROM triggerkit.consumers ORDER BY 1")
            raise UnknownConsumer(name, [known for (known,) in await cursor.fetchall()])
        return row[0], ConsumerDefinition.from_json(row[1])

    async def _refuse_second(
        self, consumer_id: int, consumer: str, table: TableName, except_id: int = 0
    ) -> None:
        cursor = await self._state.execute(_OPEN, [consumer_id, *table, except_id])
        row = await cursor.fetchone()
        if row is not None:
            raise TriggerkitError(
                f"backfill {row[0]} of {table} for consumer {consumer} is {row[1]}; it must be "
                f"complete or canceled first: triggerkit backfill cancel {row[0]}"
            )

    async def _insert(
        self, consumer_id: int, found: BackfillSource, sort_by: str | None, rows_per_s: int | None
    ) -> int:
        lower = None if found.lower is None else Jsonb([found.lower])
        until = None if found.until is None else Jsonb({"until": found.until})
        cursor = await self._state.execute(
            _INSERT, [consumer_id, *found.table, sort_by, lower, until, rows_per_s]
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def _change(
        self, backfill_id: int, action: str, statement: str, states: tuple[State, ...]
    ) -> None:
        async with self._state.transaction():
            row = await self._find(backfill_id)
            if row is None:
                open_ids = ", ".join(str(b.id) for b in await self.list()) or "none"
                raise TriggerkitError(
                    f"there is no backfill {backfill_id}; open backfills: {open_ids}"
                )
            _, consumer_id, consumer, *table = row
            if action == "resume":
                await self._state.execute(_LOCK_CONSUMER, [consumer_id])
                name = TableName(*table)
                await self._refuse_second(consumer_id, consumer, name, except_id=backfill_id)
            cursor = await self._state.execute(statement, [backfill_id, list(states)])
            if cursor.rowcount == 0:
                # Read again: the stream may have completed it just now.
                row = await self._find(backfill_id) or row
                raise TriggerkitError(
                    f"backfill {backfill_id} is {row[0]}: it cannot be {_PAST[action]}; "
                    f"only a backfill that is {' or '.join(states)} can"
                )
            await self._note(f"backfill {action}", consumer, {"backfill": backfill_id})

    async def _find(self, backfill_id: int) -> tuple[Any, ...] | None:
        cursor = await self._state.execute(_STATE, [backfill_id])
        return await cursor.fetchone()

    async def _note(self, action: str, consumer: str, detail: dict[str, Any]) -> None:
        await note(self._state, self._actor, action, f"consumer {consumer}", detail)
        await notify_consumers(self._state)


_PAST = {"pause": "paused", "resume": "resumed", "cancel": "canceled"}


def _chosen(
    consumer: str, definition: ConsumerDefinition, tables: Iterable[TableName] | None
) -> list[TableName]:
    own = list(definition.table_names)
    if tables is None:
        return own
    chosen = list(dict.fromkeys(tables))
    for table in chosen:
        if table not in own:
            there = ", ".join(map(str, own))
            raise ConfigurationError(
                f"consumer {consumer} does not follow table {table}; it follows {there}"
            )
    return chosen
