"""Ending runs that nobody executes: each end lets the next run of its key and queue go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import psycopg

from triggerkit.runs.accept.insert import Inserted, admit_on
from triggerkit.runs.keys import (
    LOCK,
    UNBLOCK,
    admit_statements,
    admitted,
    lock_parameters,
    unblock_parameters,
)
from triggerkit.runs.run import ReadyRun
from triggerkit.state.turn import Rows, Statement, in_one_turn, in_one_turn_async

_KEYS = """
SELECT task, concurrency_key FROM triggerkit.runs
WHERE id = ANY (%s) AND concurrency_key IS NOT NULL
"""

#: Whether a run is to be canceled since its parent is: it was made while that was being canceled.
#: Neither of the two transactions saw the other; whoever claims runs sees both.
ORPHANED = """
({run}.cancel_with_parent AND EXISTS (SELECT FROM triggerkit.runs p
    WHERE p.id = {run}.parent_id AND p.cancel_requested_at IS NOT NULL))
"""

_FIND_ORPHANS = f"""
SELECT r.id FROM triggerkit.runs r
WHERE r.id = ANY (%s) AND r.status || '' = 'queued' AND {ORPHANED.format(run="r")}
"""  # noqa: S608 - of constants

_CANCEL_ORPHANS = """
UPDATE triggerkit.runs r SET status = 'canceled', finished_at = clock_timestamp(), gate = NULL,
    cancel_requested_at = clock_timestamp()
FROM (SELECT id, gate FROM triggerkit.runs WHERE id = ANY (%s) ORDER BY id FOR UPDATE) AS before
WHERE r.id = before.id AND r.status || '' = 'queued'
RETURNING r.task, r.concurrency_key, r.queue, before.gate = 'open'
"""


class Leaving(Protocol):
    """A run that a query has changed, as the query returns it."""

    @property
    def queue(self) -> str:
        """The queue it is in."""

    @property
    def frees_place(self) -> bool:
        """Return whether the queue may have room for others now."""


class Left(NamedTuple):
    """The row of a query that returns nothing else of a run."""

    task: str
    concurrency_key: str | None
    queue: str
    frees_place: bool


LeavingT = TypeVar("LeavingT", bound=Leaving)


def end(
    connection: psycopg.Connection,
    run_ids: Sequence[str],
    query: str,
    parameters: Any,
    make: Callable[[Iterable[Any]], LeavingT],
) -> tuple[list[LeavingT], list[ReadyRun]]:
    """Run `query`, which changes the runs `run_ids` or some of them, under their keys' locks.

    `make` reads a row of it. Returns the rows, and the runs that became ready by it: push them.
    """
    keys = connection.execute(_KEYS, [list(run_ids)]).fetchall()
    _, rows, unblocked = in_one_turn(connection, _statements(keys, query, parameters))
    left = [make(row) for row in rows]
    freed = _freed(left, unblocked)
    return left, freed.ready + admit(connection, freed.gates)


async def end_on(
    connection: psycopg.AsyncConnection,
    run_ids: Sequence[str],
    query: str,
    parameters: Any,
    make: Callable[[Iterable[Any]], LeavingT],
) -> tuple[list[LeavingT], list[ReadyRun]]:
    """`end` for an asynchronous connection."""
    keys = await (await connection.execute(_KEYS, [list(run_ids)])).fetchall()
    _, rows, unblocked = await in_one_turn_async(connection, _statements(keys, query, parameters))
    left = [make(row) for row in rows]
    freed = _freed(left, unblocked)
    if freed.gates:
        freed.ready += await admit_on(connection, freed.gates)
    return left, freed.ready


def cancel_orphans(connection: psycopg.Connection, run_ids: Sequence[str]) -> None:
    """Cancel those of `run_ids` whose parent is canceled. What goes on by that, the keeper
    pushes."""
    orphans = [
        run_id for (run_id,) in connection.execute(_FIND_ORPHANS, [list(run_ids)]).fetchall()
    ]
    if orphans:
        end(connection, orphans, _CANCEL_ORPHANS, [orphans], Left._make)


def admit(connection: psycopg.Connection, queues: set[str]) -> list[ReadyRun]:
    """Let through the gates of `queues` what there is room for; it is to be pushed."""
    if not queues:
        return []
    _, rows = in_one_turn(connection, admit_statements(queues))
    return admitted(rows)


def _statements(keys: Rows, query: str, parameters: Any) -> list[Statement]:
    return [
        (LOCK, lock_parameters(keys)),
        (query, parameters),
        (UNBLOCK, unblock_parameters(keys)),
    ]


def _freed(left: Iterable[Leaving], unblocked: Rows) -> Inserted:
    freed = Inserted()
    freed.add([], unblocked)
    freed.gates |= {run.queue for run in left if run.frees_place}
    return freed
