"""Bulks in the state database: asked for, worked on step by step, stopped, resumed, looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from triggerkit.errors import TriggerkitError
from triggerkit.state.audit import note

Action = Literal["cancel runs", "replay runs", "retry messages", "discard messages"]

ACTIONS: tuple[Action, ...] = get_args(Action)

BulkState = Literal["active", "stopped", "failed", "done"]

#: Days for which a bulk that has ended is kept.
KEPT_DAYS = 30

_COLUMNS = (
    "id, action, filter, current, actor, state, expected, looked, changed, refused, refusal, "
    "error, cursor, created_at, worked_at, finished_at"
)

_MAKE = f"""
INSERT INTO triggerkit.bulks (action, filter, current, actor, expected)
VALUES (%s, %s, %s, %s, %s) RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants

#: The same asked for by the same page: a form that was sent twice.
_SAME = f"""
SELECT {_COLUMNS} FROM triggerkit.bulks
WHERE action = %s AND filter = %s AND current = %s AND actor = %s
  AND created_at > clock_timestamp() - interval '1 minute' ORDER BY id DESC LIMIT 1
"""  # noqa: S608 - of constants

_FORGET = """
DELETE FROM triggerkit.bulks WHERE finished_at < clock_timestamp() - %s * interval '1 day'
"""

_ONE_AT_A_TIME = "LOCK TABLE triggerkit.bulks IN SHARE ROW EXCLUSIVE MODE"

_LIST = f"""
SELECT {_COLUMNS} FROM triggerkit.bulks
WHERE id < coalesce(%s, 9223372036854775807) ORDER BY id DESC LIMIT %s
"""  # noqa: S608 - of constants

_FIND = f"SELECT {_COLUMNS} FROM triggerkit.bulks WHERE id = %s"  # noqa: S608

_IS_ANY = "SELECT EXISTS (SELECT FROM triggerkit.bulks WHERE state = 'active')"

#: Each in its turn, so that a small one does not wait for the end of a large one.
_NEXT = f"""
SELECT {_COLUMNS} FROM triggerkit.bulks WHERE state = 'active'
ORDER BY worked_at NULLS FIRST, id LIMIT 1
"""  # noqa: S608 - of constants

_TURN = "UPDATE triggerkit.bulks SET worked_at = clock_timestamp() WHERE id = %s"

_RECORD = f"""
UPDATE triggerkit.bulks SET looked = looked + %(looked)s, changed = changed + %(changed)s,
    refused = refused + %(refused)s, refusal = coalesce(refusal, %(refusal)s),
    cursor = coalesce(%(next)s, cursor), worked_at = clock_timestamp(),
    state = CASE WHEN %(next)s::text IS NULL THEN 'done' ELSE state END,
    finished_at = CASE WHEN %(next)s::text IS NULL THEN clock_timestamp() ELSE finished_at END
WHERE id = %(id)s RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants

_END = f"""
UPDATE triggerkit.bulks SET state = %s, error = %s, finished_at = clock_timestamp()
WHERE id = %s AND state = 'active' RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants

_RESUME = f"""
UPDATE triggerkit.bulks SET state = 'active', error = NULL, finished_at = NULL
WHERE id = %s AND state IN ('stopped', 'failed') RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants


class UnknownBulk(TriggerkitError):
    """No bulk has this number."""


class BulkHasEnded(TriggerkitError):
    """The bulk is not in a state in which this could be done."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A bulk. `looked` counts all that it came to, `changed` what it was done to, `refused` what it
    could not be done to; `expected` is how many there were when it was asked for."""

    id: int
    action: Action
    filter: dict[str, Any]
    current: bool
    actor: str
    state: BulkState
    expected: int | None
    looked: int
    changed: int
    refused: int
    refusal: str | None
    error: str | None
    cursor: str | None
    created_at: datetime
    worked_at: datetime | None
    finished_at: datetime | None

    @property
    def tag(self) -> str:
        """Return the tag of the runs that it makes."""
        return f"bulk:{self.id}"

    @property
    def percent(self) -> float | None:
        """Return how much of it is done; None where that is not known."""
        if self.state == "done":
            return 100.0
        if not self.expected:
            return None
        return min(100.0, 100 * self.looked / self.expected)


@dataclass(frozen=True, slots=True)
class Part:
    """What one step came to; `next` is where the following one begins, None at the end."""

    looked: int = 0
    changed: int = 0
    refused: int = 0
    refusal: str | None = None
    next: str | None = None


async def make_bulk(
    connection: psycopg.AsyncConnection,
    action: Action,
    wanted: Mapping[str, Any],
    actor: str,
    *,
    expected: int | None,
    current: bool = False,
) -> Bulk:
    """Have an action done to all that fit; `serve` takes it up. A form that is sent twice makes one
    replay: runs that were made twice cannot be told apart."""
    async with connection.transaction():
        await connection.execute(_ONE_AT_A_TIME)
        await connection.execute(_FORGET, [KEPT_DAYS])
        if action == "replay runs":
            same = await _one(connection, _SAME, [action, Jsonb(dict(wanted)), current, actor])
            if same is not None:
                return same
        made = await _one(
            connection, _MAKE, [action, Jsonb(dict(wanted)), current, actor, expected]
        )
        assert made is not None
        detail = {"action": action, "filter": dict(wanted), "expected": expected}
        await note(connection, actor, "start bulk", f"bulk {made.id}", detail)
    return made


async def list_bulks(
    connection: psycopg.AsyncConnection, *, limit: int = 50, before: int | None = None
) -> list[Bulk]:
    """Return bulks, the newest first."""
    async with connection.cursor(row_factory=class_row(Bulk)) as cursor:
        return await (await cursor.execute(_LIST, [before, limit])).fetchall()


async def find_bulk(connection: psycopg.AsyncConnection, bulk_id: int) -> Bulk:
    """Return one bulk.

    Raises:
        UnknownBulk: there is none of this number.
    """
    found = await _one(connection, _FIND, [bulk_id])
    if found is None:
        raise UnknownBulk(f"there is no bulk {bulk_id}; ended ones are kept for {KEPT_DAYS} days")
    return found


async def stop_bulk(connection: psycopg.AsyncConnection, bulk_id: int, actor: str) -> Bulk:
    """End a bulk after the step that it is at; what is done stays done.

    Raises:
        UnknownBulk, BulkHasEnded: there is none, or it works no more.
    """
    async with connection.transaction():
        stopped = await _one(connection, _END, ["stopped", None, bulk_id])
        if stopped is None:
            raise await _why_not(connection, bulk_id)
        await note(connection, actor, "stop bulk", f"bulk {bulk_id}")
    return stopped


async def resume_bulk(connection: psycopg.AsyncConnection, bulk_id: int, actor: str) -> Bulk:
    """Go on with a bulk that was stopped or has failed, from where it was.

    Raises:
        UnknownBulk, BulkHasEnded: there is none, or it is done or works already.
    """
    async with connection.transaction():
        resumed = await _one(connection, _RESUME, [bulk_id])
        if resumed is None:
            raise await _why_not(connection, bulk_id)
        await note(connection, actor, "resume bulk", f"bulk {bulk_id}")
    return resumed


async def is_any_active(connection: psycopg.AsyncConnection) -> bool:
    """Return whether there is something to do."""
    row = await (await connection.execute(_IS_ANY)).fetchone()
    return row is not None and bool(row[0])


async def next_bulk(connection: psycopg.AsyncConnection) -> Bulk | None:
    """Return the bulk whose turn it is."""
    return await _one(connection, _NEXT, [])


async def take_turn(connection: psycopg.AsyncConnection, bulk: Bulk) -> None:
    """Note that a bulk is worked on now, so that the others' turns come before its next one."""
    await connection.execute(_TURN, [bulk.id])


async def record_part(connection: psycopg.AsyncConnection, bulk: Bulk, part: Part) -> None:
    """Keep what a step came to, and leave a line in the audit at the end."""
    values = {name: getattr(part, name) for name in Part.__slots__}
    async with connection.transaction():
        now = await _one(connection, _RECORD, {**values, "id": bulk.id})
        if now is not None and part.next is None:
            await _note_end(connection, now)


async def fail_bulk(connection: psycopg.AsyncConnection, bulk: Bulk, error: str) -> None:
    """Give a bulk up, with what is said about it; it can be resumed."""
    async with connection.transaction():
        failed = await _one(connection, _END, ["failed", error, bulk.id])
        if failed is not None:
            await _note_end(connection, failed)


async def _note_end(connection: psycopg.AsyncConnection, bulk: Bulk) -> None:
    detail: dict[str, Any] = {
        "action": bulk.action,
        "changed": bulk.changed,
        "refused": bulk.refused,
    }
    if bulk.error is not None:
        detail["error"] = bulk.error
    await note(connection, bulk.actor, "end bulk", f"bulk {bulk.id}", detail)


async def _why_not(connection: psycopg.AsyncConnection, bulk_id: int) -> TriggerkitError:
    found = await find_bulk(connection, bulk_id)
    return BulkHasEnded(f"bulk {bulk_id} is {found.state}: somebody was there before")


async def _one(connection: psycopg.AsyncConnection, query: Any, parameters: Any) -> Bulk | None:
    async with connection.cursor(row_factory=class_row(Bulk)) as cursor:
        return await (await cursor.execute(query, parameters)).fetchone()
