"""Concurrency keys: of a key's unfinished runs exactly one, the first that arrived, is not blocked.

Whoever adds or ends a run of a key holds the key's lock until its transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

#: A task's name and one of its concurrency keys, None for a run that has none.
Key: TypeAlias = tuple[str, str | None]

#: Takes the keys' locks, in one order everywhere: two transactions cannot wait in a ring.
LOCK = """
SELECT pg_advisory_xact_lock(number) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS number FROM unnest(%s::text[]) AS name ORDER BY 1
) AS locks
"""

#: Lets the first unfinished run of each key go on; it may be waiting for a retry, then none does.
UNBLOCK = """
UPDATE triggerkit.runs SET blocked = false, queued_at = clock_timestamp()
WHERE blocked AND id = ANY (ARRAY(
    SELECT (SELECT r.id FROM triggerkit.runs r
            WHERE r.task = k.task AND r.concurrency_key = k.key AND r.finished_at IS NULL
            ORDER BY r.seq LIMIT 1)
    FROM unnest(%s::text[], %s::text[]) AS k (task, key)))
RETURNING queue, id, status
"""


def lock_parameters(keys: Iterable[Key]) -> list[list[str]]:
    """The parameters of `LOCK`."""
    return [sorted({f"{task}\x1f{key}" for task, key in keys if key is not None})]


def unblock_parameters(keys: Iterable[Key]) -> list[list[str]]:
    """The parameters of `UNBLOCK`."""
    with_key = sorted({(task, key) for task, key in keys if key is not None})
    return [[task for task, _ in with_key], [key for _, key in with_key]]


def runnable(unblocked: Sequence[tuple[Any, ...]]) -> list[tuple[str, str]]:
    """What of `UNBLOCK`'s rows is to be pushed, as (queue, run id)."""
    return [(queue, run_id) for queue, run_id, status in unblocked if status == "queued"]
