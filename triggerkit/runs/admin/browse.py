"""Looking at runs: lists and one run, as the CLI and the API show them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.rows import dict_row

from triggerkit.errors import TriggerkitError
from triggerkit.log.json_object import PAYLOAD_LEVELS, show_value
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.reasons import Reason, facts_about
from triggerkit.runs.run import accepted_at
from triggerkit.state.reading import Reads, rows_of, together

#: Most runs in one page, and most spans and lines, the last ones, and children, shown with a run.
MAX_LIMIT = 1000
MOST_SPANS = 5_000
MOST_CHILDREN = 100

#: Milliseconds that a look through the runs may take.
LOOK_MS = 10_000

#: The few runs that are in a status may be sorted: else, to have them in order, all runs are read.
LOOKING = "SET LOCAL statement_timeout = {ms}; SET LOCAL enable_sort = on"

#: Greater than every id.
_BEYOND = "run_~"

_SUMMARY = """
r.id, r.task, r.queue, r.status, r.attempt, r.max_attempts, r.waits, r.crashes, r.items, r.error,
r.idempotency_key, r.concurrency_key, r.tags, r.metadata, r.source, r.priority, r.created_at,
r.scheduled_at, to_timestamp((r.rank + r.priority * 1000000::bigint) / 1000000.0) AS queued_at,
r.expires_at, r.started_at, r.finished_at, r.cancel_requested_at, r.worker, r.version, r.replay_of,
r.parent_id, r.blocked, r.gate, r.full_keys
"""

#: What is looked up for the reason, and for keys that are too long, alone.
_INWARD = ("blocked", "gate", "full_keys")

_ONE = f"SELECT {_SUMMARY}, r.payload, r.output FROM triggerkit.runs r WHERE r.id = %s"  # noqa: S608

_SEVERAL = f"SELECT {_SUMMARY} FROM triggerkit.runs r WHERE r.id = ANY (%s)"  # noqa: S608

#: The one that succeeded or is under way is in its run's own row.
_ATTEMPTS = """
SELECT attempt, status, started_at, finished_at, worker, error FROM triggerkit.attempts
WHERE run_id = %(id)s
UNION ALL
SELECT attempt, status, started_at, finished_at, worker, NULL FROM triggerkit.runs
WHERE id = %(id)s AND status || '' IN ('completed', 'executing')
ORDER BY attempt
"""

_SPANS = """
SELECT id, attempt, kind, span_id, parent, name, level, attributes, error, started_at, ended_at
FROM triggerkit.spans WHERE run_id = %s AND id > %s ORDER BY id LIMIT %s
"""

#: Of a run that says more than that: all that a waterfall is made of, and the last lines.
_LAST_SPANS = """
SELECT * FROM (
    SELECT id, attempt, kind, span_id, parent, name, level, attributes, error, started_at, ended_at
    FROM triggerkit.spans WHERE run_id = %s ORDER BY kind = 'span' DESC, id DESC LIMIT %s) s
ORDER BY id
"""

#: Those that a run triggered, and those that replay it.
_FOLLOWING = """
(SELECT id, task, status, false AS replays FROM triggerkit.runs WHERE parent_id = %(id)s
    ORDER BY id LIMIT %(most)s)
UNION ALL
(SELECT id, task, status, true FROM triggerkit.runs WHERE replay_of = %(id)s LIMIT %(most)s)
"""


async def list_runs(
    connection: psycopg.AsyncConnection,
    wanted: RunFilter = RunFilter(),  # noqa: B008 - immutable
    *,
    limit: int = 20,
    after: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the newest runs that fit, without payloads and outputs, and what `after` is for more.

    Raises:
        TriggerkitError: they are not found in time.
    """
    limit = min(limit, MAX_LIMIT)
    query, parameters = wanted.ids("r.id < %(after)s", limit + 1)
    rows = await _within_time(
        connection,
        f"SELECT {_SUMMARY} FROM triggerkit.runs r WHERE r.id = ANY (ARRAY({query})) "  # noqa: S608
        "ORDER BY r.id DESC",
        {**parameters, "after": _BEYOND if after is None else after},
    )
    more = rows[limit - 1]["id"] if len(rows) > limit else None
    facts = await facts_about(connection, rows)
    return [_shown(row, facts.reason(row)) for row in rows[:limit]], more


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """A part of a list. `after` asks for what follows. With `back_to` it was looked no farther,
    since it takes long: what fits may come after that."""

    runs: Sequence[dict[str, Any]] = ()
    after: str | None = None
    back_to: datetime | None = None


async def search_runs(
    connection: psycopg.AsyncConnection,
    wanted: RunFilter,
    *,
    limit: int,
    after: str | None = None,
    within_ms: int,
) -> FoundRuns:
    """Return the newest runs that fit, as `list_runs` does, of those that can be looked through in
    time."""
    if not wanted.is_in_order:
        runs, following = await list_runs(connection, wanted, limit=limit, after=after)
        return FoundRuns(runs, following)
    query, parameters = wanted.looked_through("r.id < %(after)s", limit + 1)
    bounds = {"after": _BEYOND if after is None else after, "ms": within_ms}
    rows = await (await connection.execute(query, {**parameters, **bounds})).fetchall()
    ids = list(takewhile(lambda row: row[1], rows))
    is_late = len(ids) < len(rows)
    shown = [run_id for run_id, _ in ids[:limit]]
    runs = sorted(await summaries_of(connection, shown), key=itemgetter("id"), reverse=True)
    if is_late:
        last = rows[len(ids)][0]
        return FoundRuns(runs, last, accepted_at(last))
    return FoundRuns(runs, shown[-1] if len(ids) > limit else None)


async def count_soon(
    connection: psycopg.AsyncConnection, wanted: RunFilter, most: int, *, within_ms: int
) -> tuple[int, bool]:
    """Count the runs that fit, no more than `most`, as far as that can be done in time; also say
    whether these are all."""
    query, parameters = wanted.looked_through("true", most + 1, in_order=False)
    counted = f"SELECT count(*) FILTER (WHERE fits), bool_and(fits) FROM ({query}) c"  # noqa: S608
    cursor = await connection.execute(counted, {**parameters, "ms": within_ms})
    row = await cursor.fetchone()
    assert row is not None
    return min(row[0], most), row[0] <= most and row[1] is not False


async def summaries_of(connection: Reads, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the runs of these ids, as in a list."""
    rows = await rows_of(connection, _SEVERAL, [list(run_ids)], into=dict[str, Any])
    facts = await facts_about(connection, rows)
    return [_shown(row, facts.reason(row)) for row in rows]


async def explained(
    connection: Reads, run_ids: Sequence[str]
) -> list[tuple[dict[str, Any], Reason | None]]:
    """Return the runs of these ids, as in a list, each with why it is not running."""
    rows = await rows_of(connection, _SEVERAL, [list(run_ids)], into=dict[str, Any])
    facts = await facts_about(connection, rows)
    return [(row, facts.explain(row)) for row in rows]


async def show_run(connection: Reads, run_id: str) -> dict[str, Any] | None:
    """Return one run whole, with its attempts, what it said, and the runs that it made; None when
    there is none of this id."""
    among = {"id": run_id, "most": MOST_CHILDREN}
    async with together(connection) as reads:
        found, attempts, following, spans = await asyncio.gather(
            rows_of(reads, _ONE, [run_id], into=dict[str, Any]),
            rows_of(reads, _ATTEMPTS, {"id": run_id}, into=dict[str, Any]),
            rows_of(reads, _FOLLOWING, among, into=dict[str, Any]),
            rows_of(reads, _LAST_SPANS, [run_id, MOST_SPANS], into=dict[str, Any]),
        )
        if not found:
            return None
        [row] = found
        facts = await facts_about(reads, [row])
    for name in ("payload", "output"):
        row[name] = None if row[name] is None else show_value(row[name].encode(), PAYLOAD_LEVELS)
    replays = [run for run in following if run["replays"]]
    replays.sort(key=lambda run: str(run["id"]), reverse=True)
    return {
        **_shown(row, facts.reason(row)),
        "attempts": attempts,
        "children": [run for run in following if not run.pop("replays")],
        "replays": replays,
        "spans": spans,
    }


async def spans_of(
    connection: psycopg.AsyncConnection, run_id: str, after: int = 0
) -> list[dict[str, Any]]:
    """Return what a run said, spans and lines as they were written, after the one of number
    `after`."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(_SPANS, [run_id, after, MOST_SPANS])).fetchall()


async def newest_ids(
    connection: psycopg.AsyncConnection, wanted: RunFilter, *, limit: int, before: str | None
) -> list[str]:
    """Return the newest ids that fit and are before `before`.

    Raises:
        TriggerkitError: they are not found in time.
    """
    query, parameters = wanted.ids("r.id < %(before)s", limit)
    bounds = {**parameters, "before": _BEYOND if before is None else before}
    return [row["id"] for row in await _within_time(connection, query, bounds)]


async def oldest_ids(
    connection: psycopg.AsyncConnection, wanted: RunFilter, *, limit: int, after: str, before: str
) -> list[str]:
    """Return the oldest ids that fit, between `after` and `before`.

    Raises:
        TriggerkitError: they are not found in time.
    """
    bound = "r.id > %(after)s AND r.id < %(before)s"
    query, parameters = wanted.ids(bound, limit, oldest_first=True)
    bounds = {**parameters, "after": after, "before": before}
    return [row["id"] for row in await _within_time(connection, query, bounds)]


async def count_of(
    connection: psycopg.AsyncConnection, wanted: RunFilter, most: int, *, within_ms: int = LOOK_MS
) -> int:
    """Count the runs that fit; no more than `most` are counted.

    Raises:
        TriggerkitError: they are not found in time.
    """
    query, parameters = wanted.ids("true", most)
    counted = f"SELECT count(*) AS runs FROM ({query}) c"  # noqa: S608 - of constants
    [row] = await _within_time(connection, counted, parameters, within_ms)
    return int(row["runs"])


async def _within_time(
    connection: psycopg.AsyncConnection,
    query: str,
    parameters: dict[str, Any],
    within_ms: int = LOOK_MS,
) -> Sequence[dict[str, Any]]:
    try:
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(LOOKING.format(ms=within_ms))
            return await (await cursor.execute(query, parameters)).fetchall()
    except psycopg.errors.QueryCanceled:
        raise TriggerkitError(
            f"the search through the runs took more than {within_ms / 1000:g} s; narrow it with a "
            "time (since, until) or a status"
        ) from None


def _shown(row: dict[str, Any], reason: str | None) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name not in _INWARD}
    full = {name: key for name, key in (row["full_keys"] or {}).items() if name in shown}
    return {**shown, **full, "reason": reason}
