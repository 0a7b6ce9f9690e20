"""Why runs are not running, each with what can be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from triggerkit.runs.breakers import Breaker, open_breakers
from triggerkit.state.reading import Reads, rows_of, together

#: After so long a free worker has taken a run, unless nothing brings it there.
GRACE = timedelta(seconds=5)

#: What is due later than so holds up what waits for it longer than one expects.
LONG = timedelta(minutes=5)

_NOW = "SELECT clock_timestamp()"

_WORKERS = """
SELECT w.tasks, w.slots, w.async_slots,
    (SELECT count(*)::int FROM triggerkit.runs e
     WHERE e.status = 'executing' AND e.worker = w.id) AS executing
FROM triggerkit.workers w
"""

#: Of the queues that have limits or are paused. free_at is when their rate lets one more through.
_QUEUES = """
SELECT q.name, q.paused_at, q.concurrency, q.rate_limit, q.rate_period_s,
    (SELECT count(*)::int FROM triggerkit.runs o
     WHERE o.queue = q.name AND o.gate = 'open') AS open,
    (SELECT a.at + q.rate_period_s * interval '1 second' FROM triggerkit.starts a
     WHERE q.rate_limit IS NOT NULL AND a.queue = q.name ORDER BY a.at DESC
     OFFSET greatest(q.rate_limit - 1, 0) LIMIT 1) AS free_at,
    waits.waiting, waits.awaited
FROM triggerkit.queues q LEFT JOIN LATERAL (
    SELECT o.id AS waiting, c.id AS awaited FROM triggerkit.runs o
    JOIN triggerkit.runs c ON c.parent_id = o.id COLLATE "default" AND c.awaited
        AND c.finished_at IS NULL
    WHERE o.queue = q.name AND o.gate = 'open' LIMIT 1) AS waits ON true
WHERE q.name = ANY (%s)
"""

#: The run that goes on of each key, the first unfinished one, but for what came in late; and how
#: many do beside it.
_HOLDERS = """
SELECT k.task, k.key, h.id, h.status, h.scheduled_at, (
    SELECT count(*) FROM triggerkit.runs o WHERE o.task = k.task AND o.concurrency_key = k.key
        AND o.finished_at IS NULL AND NOT o.blocked AND o.id <> h.id)::int AS others
FROM unnest(%s::text[], %s::text[]) AS k (task, key),
LATERAL (SELECT f.id, f.status, CASE WHEN f.status IN ('delayed', 'retrying')
        THEN f.scheduled_at END AS scheduled_at
    FROM triggerkit.runs f
    WHERE f.task = k.task AND f.concurrency_key = k.key AND f.finished_at IS NULL
    ORDER BY f.blocked, f.seq LIMIT 1) AS h
"""

#: A run as it is asked about: a row of `runs`.
Row = Mapping[str, Any]


class _Worker(NamedTuple):
    tasks: list[str]
    slots: int
    async_slots: int
    executing: int

    def may_take(self, task: str) -> bool:
        """Return whether it takes runs of `task`. One that has not told its tasks may take any: it
        starts, or its lease was made anew."""
        return not self.tasks or task in self.tasks


class _Queue(NamedTuple):
    name: str
    paused_at: datetime | None
    concurrency: int | None
    rate_limit: int | None
    rate_period_s: float | None
    open: int
    free_at: datetime | None
    waiting: str | None
    awaited: str | None


class _Holder(NamedTuple):
    id: str
    status: str
    scheduled_at: datetime | None
    others: int


class Reason(NamedTuple):
    """Why a run is not running, by a name that programs know.

    `remedy` is a command; `lead` says how it follows on the cause in a sentence, which ends with
    what is `said` instead where they differ. `held` is the run that it waits behind.
    """

    code: str
    cause: str
    remedy: str | None = None
    lead: str | None = None
    held: str | None = None
    said: str | None = None

    @property
    def text(self) -> str:
        """Return it in one sentence."""
        if self.said is not None:
            return f"{self.cause}{self.said}"
        return self.cause if self.lead is None else f"{self.cause}{self.lead}{self.remedy}"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that the reasons of some runs follow from."""

    now: datetime
    workers: Sequence[_Worker]
    queues: Mapping[str, _Queue]
    holders: Mapping[tuple[str, str], _Holder]
    breakers: Mapping[str, Breaker]

    def reason(self, run: Row) -> str | None:
        """Why `run` is not running, and what helps; None of one that executes or is finished."""
        found = self.explain(run)
        return None if found is None else found.text

    def explain(self, run: Row) -> Reason | None:
        """Return what `reason` says, with its name and its remedy apart."""
        if run["status"] in ("delayed", "retrying"):
            return self._until(run)
        if run["status"] != "queued":
            return None
        return (
            self._breaker(run)
            or self._key(run)
            or self._pause(run)
            or self._worker(run)
            or self._gate(run)
            or self._slots(run)
        )

    def _until(self, run: Row) -> Reason:
        if run["scheduled_at"] <= self.now and not self.workers:
            return _no_worker(f"due since {_when(run['scheduled_at'])}")
        if run["status"] == "delayed":
            return Reason("run_delayed", f"delayed until {_when(run['scheduled_at'])}")
        if waits := self._breaker(run):
            return waits
        return Reason(
            "retrying",
            f"retry at {_when(run['scheduled_at'])}, after attempt {run['attempt']} failed",
        )

    def _key(self, run: Row) -> Reason | None:
        if not run["blocked"]:
            return None
        held = self.holders.get((run["task"], run["concurrency_key"]))
        if held is None or held.id == run["id"]:
            return Reason("key_held", "its key has just become free")
        reason = f"its key is held by {held.id} ({held.status})"
        if held.others:
            reason += f" and {held.others} more"
            return Reason("key_held", reason, f"triggerkit runs show {held.id}")
        if held.scheduled_at is None or held.scheduled_at - self.now < LONG:
            return Reason("key_held", reason, f"triggerkit runs show {held.id}", held=held.id)
        reason += f" until {_when(held.scheduled_at)}"
        remedy = f"triggerkit runs cancel {held.id}"
        return Reason("key_held", reason, remedy, "; end that with: ", held.id)

    def _pause(self, run: Row) -> Reason | None:
        queue = self.queues.get(run["queue"])
        if queue is None or queue.paused_at is None:
            return None
        return Reason(
            "queue_paused",
            f"the queue {queue.name} is paused since {_when(queue.paused_at)}",
            f"triggerkit queues resume {queue.name}",
            "; go on with: ",
        )

    def _worker(self, run: Row) -> Reason | None:
        since = _when(run["queued_at"])
        if not self.workers:
            return _no_worker(f"waiting since {since}")
        if any(worker.may_take(run["task"]) for worker in self.workers):
            return None
        return Reason(
            "no_worker_for_task",
            f"no worker for its task {run['task']} (queue {run['queue']}) since {since}: none of "
            f"{len(self.workers)} takes it",
            f"triggerkit worker --queue {run['queue']}",
            said=". It is kept; start a worker that has the task, or end it with: triggerkit runs "
            f"cancel {run['id']}",
        )

    def _breaker(self, run: Row) -> Reason | None:
        breaker = self.breakers.get(run["task"])
        if breaker is None or not self.workers:
            return None
        return Reason(
            "api_away",
            f"its task waits since {_when(breaker.opened_at)} for what it calls "
            f"({breaker.error}): one run is tried at {_when(breaker.probe_at)}, and once one ends "
            "otherwise all go on",
        )

    def _gate(self, run: Row) -> Reason | None:
        queue = self.queues.get(run["queue"])
        if queue is None or run["gate"] != "held":
            return None
        if queue.concurrency is not None and queue.open >= queue.concurrency:
            return Reason(
                "queue_limited",
                f"limit {queue.open}/{queue.concurrency} of the queue {queue.name}: it starts when "
                f"one of those ends{_waiting(queue)}",
                f"triggerkit queues limit {queue.name} --concurrency {2 * queue.concurrency}",
                said=f"; more with: triggerkit queues limit {queue.name} --concurrency",
            )
        if queue.free_at is not None and queue.free_at > self.now:
            return Reason(
                "queue_limited",
                f"rate limit {queue.rate_limit} in {queue.rate_period_s:g} s of the queue "
                f"{queue.name}: the next one may start at {_when(queue.free_at)}",
            )
        return Reason("queue_limited", f"about to be let through by the queue {queue.name}")

    def _slots(self, run: Row) -> Reason:
        able = [worker for worker in self.workers if worker.may_take(run["task"])]
        busy = sum(worker.executing for worker in able)
        if busy == 0 and self.now - run["queued_at"] > GRACE:
            return Reason(
                "transport_away",
                f"waiting since {_when(run['queued_at'])} though {len(able)} workers are idle",
                "triggerkit check",
                "; what carries runs to them may be away, see: ",
            )
        return Reason(
            "workers_busy",
            f"waiting for a free slot: {busy} runs execute in {len(able)} "
            f"{'process' if len(able) == 1 else 'processes'} with "
            f"{sum(worker.slots for worker in able)} slots for sync and "
            f"{sum(worker.async_slots for worker in able)} for async tasks",
            "triggerkit worker",
            "; more with: ",
        )


def _no_worker(since: str) -> Reason:
    return Reason(
        "no_worker", f"{since}; no worker is running", "triggerkit worker", "; start one with: "
    )


async def facts_about(connection: Reads, runs: Sequence[Row]) -> Facts:
    """Return what the reasons of `runs` follow from; nothing is asked when none of them waits."""
    waiting = [run for run in runs if run["status"] in ("queued", "delayed", "retrying")]
    if not waiting:
        return Facts(datetime.max, (), {}, {}, {})
    queues = {run["queue"] for run in waiting}
    keys = {(run["task"], run["concurrency_key"]) for run in waiting if run["blocked"]}
    async with together(connection) as reads:
        [(now,)], workers, limited, held, breakers = await asyncio.gather(
            rows_of(reads, _NOW),
            rows_of(reads, _WORKERS, into=_Worker),
            rows_of(reads, _QUEUES, [list(queues)], into=_Queue),
            rows_of(reads, _HOLDERS, [[task for task, _ in keys], [key for _, key in keys]]),
            open_breakers(reads),
        )
    holders = {(task, key): _Holder(*holder) for task, key, *holder in held}
    return Facts(now, workers, {queue.name: queue for queue in limited}, holders, breakers)


def _waiting(queue: _Queue) -> str:
    if queue.waiting is None:
        return ""
    return f" ({queue.waiting} of them waits for {queue.awaited})"


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
