"""Canceling runs: those that wait at once, those that execute by their workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import psycopg

from triggerkit.errors import HasEnded, TriggerkitError, UnknownRun
from triggerkit.runs.admin.browse import newest_ids
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.runs.run import ReadyRun, Status
from triggerkit.runs.transitions import end_on
from triggerkit.state.audit import note
from triggerkit.state.channels import KEEPER

#: Most runs changed by one statement.
CHUNK = 1_000

#: How often it is tried to get hold of runs that are being completed.
TRIES = 5

#: The statuses that a run can be canceled in.
UNFINISHED: tuple[Status, ...] = ("delayed", "queued", "retrying", "executing")

#: One statement for all, so that none slips through on its way from one status to another.
_CANCEL = """
WITH found AS (
    SELECT id, gate, status = 'executing' AS executes FROM triggerkit.runs
    WHERE id = ANY (%s) AND finished_at IS NULL ORDER BY id FOR UPDATE)
UPDATE triggerkit.runs r
SET cancel_requested_at = coalesce(r.cancel_requested_at, clock_timestamp()),
    status = CASE WHEN found.executes THEN r.status ELSE 'canceled' END,
    finished_at = CASE WHEN NOT found.executes THEN clock_timestamp() END,
    gate = CASE WHEN found.executes THEN r.gate END
FROM found WHERE r.id = found.id
RETURNING r.task, r.concurrency_key, r.queue, NOT found.executes AND found.gate = 'open', r.id,
    found.executes
"""

#: A run with attempts behind it waits for the next one. The ttl counts from when it is due.
_RESCHEDULE = """
WITH found AS (
    SELECT id, gate, clock_timestamp() + %s * interval '1 second' AS due_at FROM triggerkit.runs
    WHERE id = ANY (%s) AND status || '' IN ('delayed', 'queued', 'retrying') FOR UPDATE)
UPDATE triggerkit.runs r
SET scheduled_at = found.due_at, gate = NULL,
    expires_at = found.due_at + (r.expires_at - coalesce(r.scheduled_at, r.created_at)),
    status = CASE WHEN r.attempt > 0 THEN 'retrying' ELSE 'delayed' END
FROM found WHERE r.id = found.id
RETURNING r.task, r.concurrency_key, r.queue, found.gate IS NOT DISTINCT FROM 'open', r.id, false
"""

_WAKE = f"SELECT pg_notify('{KEEPER}', '')"

#: What is to be canceled with runs. A child that executes was asked before, and is not found again.
_CHILDREN = """
SELECT id FROM triggerkit.runs
WHERE parent_id = ANY (%s) AND cancel_with_parent AND finished_at IS NULL
    AND cancel_requested_at IS NULL
LIMIT %s
"""

_STATUS = "SELECT status FROM triggerkit.runs WHERE id = %s"

#: Told how many runs were looked at since it was told last.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Counts of canceled runs, and of those that execute and were asked to end."""

    canceled: int = 0
    asked: int = 0
    next: str | None = None


async def cancel_run(client: Client, run_id: str, actor: str) -> Cancellation:
    """Cancel one run. A task that executes is stopped by its worker, within a second or so.

    Raises:
        UnknownRun: there is none of this id.
        HasEnded: it is finished.
    """
    async with client.pool.connection() as connection:
        row = await (await connection.execute(_STATUS, [run_id])).fetchone()
        if row is None:
            raise UnknownRun(f"no run has the id {run_id!r}; see `triggerkit runs list`")
        canceled = await _cancel(client, connection, [run_id])
        if canceled == Cancellation():
            row = await (await connection.execute(_STATUS, [run_id])).fetchone()
            raise HasEnded(f"{run_id} is {row[0] if row else 'gone'}: it has ended already")
        await note(connection, actor, "cancel run", f"run {run_id}")
    return canceled


async def cancel_if_unfinished(client: Client, run_id: str, actor: str) -> bool:
    """Cancel one run; False when it has ended already.

    Raises:
        UnknownRun: there is none of this id.
    """
    try:
        await cancel_run(client, run_id, actor)
    except HasEnded:
        return False
    return True


async def reschedule_run(client: Client, run_id: str, delay_s: float, actor: str) -> None:
    """Have one run that waits start, or be tried again, in `delay_s` from now.

    Raises:
        UnknownRun: there is none of this id.
        TriggerkitError: it executes, or has ended.
    """
    async with client.pool.connection() as connection:
        found, ready = await _end(connection, [run_id], _RESCHEDULE, [delay_s, [run_id]])
        if not found:
            row = await (await connection.execute(_STATUS, [run_id])).fetchone()
            if row is None:
                raise UnknownRun(f"no run has the id {run_id!r}; see `triggerkit runs list`")
            raise TriggerkitError(f"{run_id} is {row[0]}: only a run that waits is rescheduled")
        await note(connection, actor, "reschedule run", f"run {run_id}", {"delay_s": delay_s})
        await connection.execute(_WAKE)
    await client.transport.push(ready)


async def cancel_runs(
    client: Client,
    wanted: RunFilter,
    actor: str,
    *,
    most: int | None = None,
    after: str | None = None,
    progress: Progress = lambda _: None,
) -> Cancellation:
    """Cancel the unfinished runs that fit, newest first, a chunk at a time; at most `most`.

    Raises:
        TriggerkitError: the runs are not found in time.
    """
    total = Cancellation(next=after)
    if not unfinished_of(wanted).statuses:
        return total
    done = 0
    try:
        while most is None or done < most:
            limit = CHUNK if most is None else min(CHUNK, most - done)
            part, looked = await cancel_next(client, wanted, limit=limit, before=total.next)
            done += looked
            total = Cancellation(
                total.canceled + part.canceled, total.asked + part.asked, part.next
            )
            progress(looked)
            if total.next is None:
                break
    finally:
        detail = {"filter": wanted.as_json(), "runs": total.canceled + total.asked}
        async with client.pool.connection() as connection:
            await note(connection, actor, "cancel runs", "runs", detail)
    return total


def unfinished_of(wanted: RunFilter) -> RunFilter:
    """Return the filter of those that can be canceled; without a status where none can."""
    statuses = tuple(s for s in wanted.statuses or UNFINISHED if s in UNFINISHED)
    return replace(wanted, statuses=statuses)


async def cancel_next(
    client: Client, wanted: RunFilter, *, limit: int, before: str | None
) -> tuple[Cancellation, int]:
    """Cancel the newest unfinished runs that fit and are before `before`, and return how many were
    looked at; without a line in the audit. What was canceled is not found again.

    Raises:
        TriggerkitError: the runs are not found in time.
    """
    async with client.pool.connection() as connection:
        ids = await newest_ids(connection, unfinished_of(wanted), limit=limit, before=before)
        part = await _cancel(client, connection, ids)
    return replace(part, next=ids[-1] if len(ids) == limit else None), len(ids)


class _Canceled(NamedTuple):
    """A row of `_CANCEL`; one that executes is only asked to stop."""

    task: str
    concurrency_key: str | None
    queue: str
    frees_place: bool
    id: str
    executes: bool


async def _end(
    connection: psycopg.AsyncConnection, ids: Sequence[str], query: str, parameters: Sequence[Any]
) -> tuple[Sequence[_Canceled], Sequence[ReadyRun]]:
    for _ in range(TRIES):
        # Workers complete runs in an order of their own: each may wait for what the other holds.
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            return await end_on(connection, ids, query, parameters, _Canceled._make)
    raise TriggerkitError("the runs are completing right now; try again")


async def _cancel(
    client: Client, connection: psycopg.AsyncConnection, ids: Sequence[str]
) -> Cancellation:
    total = Cancellation()
    parents: list[str] = []
    while ids:
        found, ready = await _end(connection, ids, _CANCEL, [list(ids)])
        asked = sum(run.executes for run in found)
        if asked:
            await connection.execute(_WAKE)
        await client.transport.push(ready)
        total = Cancellation(total.canceled + len(found) - asked, total.asked + asked)
        parents += [run.id for run in found]
        rows = await connection.execute(_CHILDREN, [parents, CHUNK])
        ids = [run_id for (run_id,) in await rows.fetchall()]
    return total
