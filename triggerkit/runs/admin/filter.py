"""Filter runs, for lists, bulk operations and counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from triggerkit.runs.run import Status, first_run_id_at

#: Each status by conditions of which each fits one of the indexes of unfinished or unsuccessful
#: runs; together they say the status. Those that are completed are nearly all runs.
_BRANCHES: Final[dict[Status, tuple[str, ...]]] = {
    "queued": (
        "r.status = 'queued' AND NOT r.blocked AND r.gate IS DISTINCT FROM 'held'",
        "r.status = 'queued' AND NOT r.blocked AND r.gate = 'held'",
        """r.status = 'queued' AND r.blocked
            AND r.concurrency_key IS NOT NULL AND r.finished_at IS NULL""",
    ),
    "delayed": ("r.status = 'delayed'",),
    "retrying": ("r.status = 'retrying'",),
    "executing": ("r.status = 'executing'",),
    "completed": ("r.status = 'completed'",),
    "failed": ("r.status = 'failed'",),
    "crashed": ("r.status = 'crashed'",),
    "canceled": ("r.status = 'canceled'",),
    "expired": ("r.status = 'expired'",),
    "timed_out": ("r.status = 'timed_out'",),
}

#: What a field of a filter asks of a run.
_CONDITIONS: Final = {
    "task": "r.task = %(task)s",
    "queue": "r.queue = %(queue)s",
    "tag": "r.tags @> ARRAY[%(tag)s::text]",
    "consumer": "r.source ->> 'consumer' = %(consumer)s",
    "table": "r.source ->> 'table' = %(table)s",
    "key": "(r.source ->> 'key' = ANY (%(key)s) OR r.item_key = ANY (%(key)s))",
    "error": "r.error ->> 'type' = %(error)s",
    "schedule": "r.source ->> 'schedule' = %(schedule)s",
    "batch": "r.source ->> 'batch' = %(batch)s",
    "text": "position(%(text)s in r.id) > 0",
    "runs": "r.id = ANY (%(runs)s)",
    "since": "r.id >= %(since)s",
    "until": "r.id < %(until)s",
}

#: Fields that bound the ids, which are in the order of time.
_BOUNDS: Final = ("since", "until")

#: Statuses of which no index is in the order of ids.
_SORTED: Final = frozenset({"queued", "delayed", "retrying", "executing"})

_IS_LATE: Final = "clock_timestamp() > statement_timestamp() + %(ms)s * interval '1 ms'"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Runs that fit every field that is given, and one of the statuses.

    `key` is a row: its identity as in `source`, or with `table` the values of its primary key.
    `error` is the type of the last error, `batch` the run that an item was part of, `text` a part
    of the id, `runs` whole ids. `since` and `until` bound when a run was accepted.
    """

    task: str | None = None
    queue: str | None = None
    statuses: tuple[Status, ...] = ()
    tag: str | None = None
    consumer: str | None = None
    table: str | None = None
    key: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None
    schedule: str | None = None
    batch: str | None = None
    text: str | None = None
    runs: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether it leaves nothing out."""
        return self == RunFilter()

    def as_json(self) -> dict[str, Any]:
        """Describe the filter, for the audit."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
            if value not in (None, ())
        }

    def ids(
        self, bound: str, limit: int, *, oldest_first: bool = False
    ) -> tuple[str, dict[str, Any]]:
        """Return a query for the newest ids that fit, at most `limit`, and its parameters.

        `bound` is one more condition on the run `r`.
        """
        order = "ASC" if oldest_first else "DESC"
        conditions, parameters = self._conditions()
        conditions.append(bound)
        parts = [
            "(SELECT r.id FROM triggerkit.runs r WHERE "  # noqa: S608 - of constants
            f"{' AND '.join([branch, *conditions])} ORDER BY r.id {order} LIMIT {limit})"
            for branch in self._branches()
        ]
        together = " UNION ALL ".join(parts)
        return f"SELECT id FROM ({together}) f ORDER BY id {order} LIMIT {limit}", parameters  # noqa: S608

    @property
    def is_in_order(self) -> bool:
        """Return whether an index has what is looked through in the order of ids: the unfinished
        runs, which are few, are sorted instead."""
        return not set(self.statuses) & _SORTED

    def looked_through(
        self, bound: str, limit: int, *, in_order: bool = True
    ) -> tuple[str, dict[str, Any]]:
        """Return a query for `id` and `fits` of the newest runs that fit, or else of any, and its
        parameters, to which `ms` is added.

        Milliseconds after it began, it takes whatever comes next, until there are `limit`: the
        first that does not fit is how far it was looked.
        """
        conditions, parameters = self._conditions(bounds=False)
        bounds = [
            bound,
            *(_CONDITIONS[name] for name in _BOUNDS if getattr(self, name) is not None),
        ]
        fits = f"coalesce({' AND '.join(conditions) or 'true'}, false)"
        order = "ORDER BY id DESC " if in_order else ""
        parts = [
            f"(SELECT r.id, {fits} AS fits FROM triggerkit.runs r "  # noqa: S608 - of constants
            f"WHERE {' AND '.join([branch, *bounds])} AND ({fits} OR {_IS_LATE}) "
            f"{order}LIMIT {limit})"
            for branch in self._branches()
        ]
        together = " UNION ALL ".join(parts)
        return f"SELECT id, fits FROM ({together}) f {order}LIMIT {limit}", parameters  # noqa: S608

    def _rows_meant(self) -> list[str]:
        """Return the rows that a key can be of: a comma stands between two values, or in one."""
        if self.key is None or self.table is None or ":[" in self.key:
            return [self.key or ""]
        meant = ([self.key], self.key.split(","))
        keys = [f"{self.table}:{orjson.dumps(values).decode()}" for values in meant]
        return list(dict.fromkeys(keys))

    def _branches(self) -> tuple[str, ...]:
        wanted = dict.fromkeys(self.statuses)
        return tuple(b for status in wanted for b in _BRANCHES[status]) or ("true",)

    def _conditions(self, *, bounds: bool = True) -> tuple[list[str], dict[str, Any]]:
        values = self.as_json()
        values.pop("statuses", None)
        for name in ("since", "until"):
            if (moment := getattr(self, name)) is not None:
                values[name] = first_run_id_at(moment.timestamp())
        if self.runs:
            values["runs"] = list(self.runs)
        if self.key is not None:
            values["key"] = self._rows_meant()
        asked = [name for name in values if bounds or name not in _BOUNDS]
        return [_CONDITIONS[name] for name in asked], values
