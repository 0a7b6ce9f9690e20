"""One transaction that makes runs, and what it tells of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import psycopg

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.runs.accept.insert import (
    FIRST,
    FREE_KEYS,
    MADE,
    Inserted,
    admit_on,
    insert_statement,
)
from triggerkit.runs.keys import LOCK, UNBLOCK, lock_parameters, unblock_parameters
from triggerkit.runs.run import NewRun, ReadyRun, RunRef
from triggerkit.runs.session import BY_INDEX
from triggerkit.state.faults import blames_values
from triggerkit.state.turn import Around, Statement, in_one_turn_async

#: Seconds that what is written together waits for a key that another transaction holds, as a
#: caller's open one does.
SHARED_WAIT_S = 1.0

#: For one transaction, in milliseconds.
_BOUND = "SELECT set_config('lock_timeout', %s, true)"

#: The same, of a session that is not of its own for runs.
_BOUND_BY_INDEX = f"{_BOUND}, {BY_INDEX}"


def around(
    runs: Sequence[NewRun], wait_s: float = SHARED_WAIT_S, *, is_own: bool = False
) -> Around:
    """Return what makes `runs` in a transaction: the locks of their keys, which come before all
    that others may wait for, and the statements whose rows `Inserted.add` takes.

    A session that `is_own` has no other statements than those about runs: see `by_index`.
    """
    keys = [(run.task, run.concurrency_key) for run in runs]
    bound = _BOUND if is_own else _BOUND_BY_INDEX
    after: list[Statement] = [insert_statement(runs)]
    # One may be counted as standing before others of its key, and not be made.
    shared = [key for key, count in Counter(keys).items() if count > 1]
    if len(runs) > 1:
        after.append((UNBLOCK, unblock_parameters(shared)))
    return Around([(bound, [f"{wait_s * 1000:.0f}"]), (LOCK, lock_parameters(keys))], after)


async def accept_on(
    connection: psycopg.AsyncConnection,
    runs: Sequence[NewRun],
    *,
    is_again: bool = False,
    wait_s: float = SHARED_WAIT_S,
) -> tuple[list[RunRef], list[ReadyRun]]:
    """Make `runs` in one transaction of an idle connection; their handles, and what is to push.

    Raises:
        psycopg.errors.LockNotAvailable: for `wait_s` another transaction held a key of theirs.
        InvalidPayload: Postgres cannot store a text of it; nothing was accepted.
    """
    try:
        inserted = await _made(connection, runs) if is_again else Inserted()
        if not inserted.ids:
            inserted = await _insert(connection, runs, wait_s)
    except psycopg.Error as error:
        if not blames_values(error) or isinstance(error, psycopg.IntegrityError):
            raise
        raise InvalidPayload([FieldProblem((), "contains text that cannot be stored")]) from None
    if runs[0].options is not None and runs[0].options.debounce_key is not None:
        [run_id] = inserted.ids
        return [RunRef(run_id, runs[0].task, duplicate=run_id != runs[0].id)], inserted.ready
    made = set(inserted.ids)
    repeated = [run for run in runs if run.id not in made]
    first, again = await _first(connection, repeated) if repeated else ({}, [])
    handles: list[RunRef] = []
    if again:
        # Keys whose time is over are free now, but somebody may be quicker.
        handles, ready = await accept_on(connection, again, wait_s=wait_s)
        inserted.ready += ready
    answered = {r.id: RunRef(r.id, r.task) for r in runs if r.id in made}
    for run in repeated:
        key = (run.task, run.idempotency_key)
        if key in first:
            answered[run.id] = RunRef(first[key], run.task, duplicate=True)
    answered.update(zip((run.id for run in again), handles, strict=True))
    return [answered[run.id] for run in runs], inserted.ready


async def _insert(
    connection: psycopg.AsyncConnection, runs: Sequence[NewRun], wait_s: float
) -> Inserted:
    making = around(runs, wait_s, is_own=True)
    rows = await in_one_turn_async(connection, [*making.before, *making.after])
    inserted = Inserted()
    inserted.add(*rows[len(making.before) :])
    if inserted.gates:
        inserted.ready += await admit_on(connection, inserted.gates)
    return inserted


async def _made(connection: psycopg.AsyncConnection, runs: Sequence[NewRun]) -> Inserted:
    """Return what a try whose answer was lost has made: all that is to be made, or nothing."""
    inserted = Inserted()
    cursor = await connection.execute(MADE, [[run.id for run in runs]])
    inserted.add(await cursor.fetchall(), [])
    if inserted.gates:
        inserted.ready += await admit_on(connection, inserted.gates)
    return inserted


async def _first(
    connection: psycopg.AsyncConnection, repeated: Sequence[NewRun]
) -> tuple[dict[tuple[str, str | None], str], list[NewRun]]:
    """Return the first run of each key, and the runs whose key has become free."""
    keys = [[r.task for r in repeated], [r.idempotency_key for r in repeated]]
    rows = await (await connection.execute(FIRST, keys)).fetchall()
    over = {(task, key): run_id for task, key, run_id, is_over in rows if is_over}
    if over:
        await connection.execute(FREE_KEYS, [list(over.values()), [key for _, key in over]])
    first: dict[tuple[str, str | None], str] = {
        (task, key): run_id for task, key, run_id, is_over in rows if not is_over
    }
    return first, [r for r in repeated if (r.task, r.idempotency_key) not in first]
