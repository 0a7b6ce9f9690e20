"""Remember which problems there are, and which of them are to be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

#: Seconds that a problem is there, or gone, before that is told: while processes are started anew
#: there are some for a moment.
SETTLE_S = 30.0

#: Details of one problem of one thing that are told together.
MOST_DETAILS = 5

#: Characters of a name, and of what is said of it: some have what tasks, servers and lists of
#: consumers say, and receivers refuse what is large.
MOST_NAME = 500
MOST_TEXT = 2000

#: Alerts that are told after one look.
MOST_DUE = 100

#: What an alert says of its problem.
Event = Literal["new", "still", "over"]

#: What is told of; the rest is advice.
TOLD = ("error", "warning")

#: What a list of `status` has things of.
KINDS = {
    "databases": "database",
    "consumers": "consumer",
    "waiting": "task",
    "failing": "task",
    "queues": "queue",
    "workers": "worker",
    "schedules": "schedule",
}

_SEE = """
INSERT INTO triggerkit.alerts AS a (kind, subject, problem, severity, detail, remedy)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT (kind, subject, problem) DO UPDATE SET severity = excluded.severity,
    detail = excluded.detail, remedy = excluded.remedy, seen_at = clock_timestamp()
"""

#: What is later than now was noted before the clock was put back: that time would be waited for.
_PUT_BACK = """
UPDATE triggerkit.alerts SET since = least(since, n.now), seen_at = least(seen_at, n.now),
    told_at = least(told_at, n.now)
FROM (SELECT clock_timestamp() AS now) n WHERE greatest(since, seen_at, told_at) > n.now
"""

#: One that was not told, and is over, is forgotten.
_FORGET = """
DELETE FROM triggerkit.alerts
WHERE told = 0 AND seen_at < clock_timestamp() - make_interval(secs => %s)
"""

#: What is new is told once it was seen for so long: what is gone by then was there for a moment.
#: It goes on behind the last that was tried, so that none waits for what is never taken.
_DUE = """
SELECT id, kind, subject, problem, severity, detail, remedy, since, told,
    CASE WHEN seen_at < clock_timestamp() - make_interval(secs => %(settle)s) THEN 'over'
        WHEN told = 0 THEN 'new' ELSE 'still' END AS event
FROM triggerkit.alerts
WHERE seen_at < clock_timestamp() - make_interval(secs => %(settle)s)
    OR told = 0 AND seen_at >= since + make_interval(secs => %(settle)s)
    OR told_at < clock_timestamp() - make_interval(secs => %(again)s)
ORDER BY id <= %(after)s, id LIMIT %(most)s
"""

_TOLD = "UPDATE triggerkit.alerts SET told = told + 1, told_at = clock_timestamp() WHERE id = %s"

_OVER = "DELETE FROM triggerkit.alerts WHERE id = %s"

#: Whether it was taken is not known: if the problem comes back, that is told at once.
_PERHAPS_OVER = "UPDATE triggerkit.alerts SET told_at = '-infinity' WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Seen:
    """A problem that is there now: of one thing, by one name."""

    kind: str
    subject: str
    problem: str
    severity: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What is to be told of a problem; `told` counts how often it was before."""

    id: int
    kind: str
    subject: str
    problem: str
    severity: str
    detail: str
    remedy: str
    since: datetime
    told: int
    event: Event

    @property
    def message_id(self) -> str:
        """The id that stays the same for the attempts to tell this."""
        number = "" if self.event == "new" else f"_{self.told}"
        return f"alert_{self.id}_{self.event}{number}"


def seen_in(health: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Seen]:
    """Return the problems in what `status` reads, those of one thing and one name as one."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for kind, subject, problem in _problems(health):
        found.setdefault((kind, _cut(subject, MOST_NAME), problem["name"]), []).append(problem)
    return [
        Seen(
            *key,
            severity="error" if any(p["severity"] == "error" for p in problems) else "warning",
            detail=_cut("; ".join(p["detail"] for p in problems[:MOST_DETAILS]), MOST_TEXT),
            remedy=_cut(problems[0]["remedy"] or "", MOST_TEXT),
        )
        for key, problems in found.items()
    ]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _problems(
    health: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for listed, kind in KINDS.items():
        for thing in health[listed]:
            subject = str(thing.get("name") or thing.get("task") or thing.get("id"))
            for problem in thing["problems"]:
                if problem["severity"] in TOLD:
                    yield kind, subject, problem


async def remember(connection: psycopg.AsyncConnection, seen: Sequence[Seen]) -> None:
    """Note the problems that are there now."""
    columns = [[getattr(one, name) for one in seen] for name in Seen.__dataclass_fields__]
    await connection.execute(_PUT_BACK)
    await connection.execute(_SEE, columns)
    await connection.execute(_FORGET, [SETTLE_S])


async def due(connection: psycopg.AsyncConnection, again_s: float, after: int = 0) -> list[Alert]:
    """Return what is to be told now, first what is behind the alert `after`; of what stays, every
    `again_s`."""
    values = {"settle": SETTLE_S, "again": again_s, "after": after, "most": MOST_DUE}
    async with connection.cursor(row_factory=class_row(Alert)) as cursor:
        await cursor.execute(_DUE, values)
        return await cursor.fetchall()


async def note_told(connection: psycopg.AsyncConnection, alert: Alert) -> None:
    """Note that somebody was told."""
    await connection.execute(_OVER if alert.event == "over" else _TOLD, [alert.id])


async def note_untold(connection: psycopg.AsyncConnection, alert: Alert) -> None:
    """Note that somebody may have been told, or not."""
    if alert.event == "over":
        await connection.execute(_PERHAPS_OVER, [alert.id])
