"""Measure how far behind each consumer is, and find its problems, each with its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from triggerkit.consumers.counted_lags import counted_lags
from triggerkit.consumers.gap import Gap, open_gaps
from triggerkit.consumers.parked.states import PARKED_STATES
from triggerkit.consumers.retention import Outlook
from triggerkit.events.kafka.faults import remedy_of
from triggerkit.log.entry import PARTITIONS
from triggerkit.lsn import Lsn
from triggerkit.state.reading import Reads, rows_of

#: Entries of each partition after a cursor that are counted one by one. What is behind them is
#: estimated by its positions, so that the answer takes as long for a thousand as for ten million.
COUNTED = 4000

#: Entries that are counted for all places of cursors together, so that it takes as long for
#: thousands of consumers that are far behind; but so many for each.
COUNTED_TOGETHER = 500_000
LEAST_COUNTED = 5

#: Parked messages that are counted at most, of each state.
PARKED_COUNTED = 100_000

#: `k.partition` is -1 where one cursor stands for all partitions. The log is read once for all
#: cursors that are at the same place of it, as those are that get none of what is written, and its
#: entries are counted by what they are of: a consumer then only looks its tables up.
_LAG = """
WITH places AS MATERIALIZED (
    SELECT c.id, c.database_id, n.partition, k.position
    FROM triggerkit.cursors k
    JOIN triggerkit.consumers c ON c.id = k.consumer_id
    JOIN generate_series(0, %(partitions)s - 1) n (partition) ON k.partition IN (n.partition, -1)),
starts AS MATERIALIZED (SELECT DISTINCT database_id, partition, position FROM places),
room AS MATERIALIZED (
    SELECT greatest(%(least)s, least(%(counted)s, %(together)s / greatest(1, count(*)))) AS entries
    FROM starts),
seen AS MATERIALIZED (
    SELECT s.database_id, s.partition, s.position, x.consumer_id,
        triggerkit.table_text(x.schema_name, x.table_name) AS name,
        count(*) AS entries, max(x.position) AS last, min(x.captured_at) AS oldest
    FROM starts s CROSS JOIN LATERAL (
        SELECT v.position, v.captured_at, v.schema_name, v.table_name, v.consumer_id
        FROM triggerkit.events v
        WHERE v.database_id = s.database_id AND v.partition = s.partition
          AND v.position > s.position
        ORDER BY v.position LIMIT (SELECT entries FROM room)) x
    GROUP BY s.database_id, s.partition, s.position, x.schema_name, x.table_name, x.consumer_id),
looked AS MATERIALIZED (
    SELECT database_id, partition, position, sum(entries) AS entries, max(last) AS last
    FROM seen GROUP BY database_id, partition, position),
wanted AS MATERIALIZED (
    SELECT p.id, p.database_id, p.partition, p.position, s.entries, s.oldest
    FROM places p
    JOIN triggerkit.consumers c ON c.id = p.id
    CROSS JOIN LATERAL (
        SELECT DISTINCT jsonb_array_elements_text(c.definition -> 'tables')) t (name)
    JOIN seen s ON s.database_id = p.database_id AND s.partition = p.partition
        AND s.position = p.position AND s.name = t.name AND s.consumer_id IS NULL
    UNION ALL
    SELECT p.id, p.database_id, p.partition, p.position, s.entries, s.oldest
    FROM places p
    JOIN seen s ON s.database_id = p.database_id AND s.partition = p.partition
        AND s.position = p.position AND s.consumer_id = p.id),
lags AS MATERIALIZED (
    SELECT w.id, min(w.oldest) AS oldest,
        sum(w.entries + CASE WHEN l.entries < (SELECT entries FROM room) THEN 0 ELSE
            greatest(0, d.next_position - 1 - l.last) / %(partitions)s::numeric
            * w.entries / l.entries END) AS messages
    FROM wanted w
    JOIN looked l USING (database_id, partition, position)
    JOIN triggerkit.databases d ON d.id = w.database_id
    GROUP BY w.id)
SELECT c.id, c.name, c.kind, c.state, c.last_error, c.definition ->> 'task' AS task,
    ARRAY(SELECT jsonb_array_elements_text(c.definition -> 'tables')) AS tables,
    ARRAY(SELECT concat_ws(' ', f ->> 'column', f ->> 'operator', f ->> 'value')
     FROM jsonb_array_elements(c.definition -> 'filters') f)
        || array_remove(ARRAY[c.definition ->> 'filter'], NULL) AS filters,
    e.name AS endpoint, e.url AS endpoint_url, coalesce(c.definition ->> 'via', 'webhook') AS via,
    e.disabled_at AS endpoint_disabled_at, coalesce(e.local, false) AS is_local,
    (SELECT count(*) FROM triggerkit.open_tunnels o WHERE o.endpoint_id = e.id) AS tunnels,
    coalesce(l.messages, 0)::bigint AS lag_messages,
    coalesce(extract(epoch FROM clock_timestamp() - l.oldest), 0)::float AS lag_seconds,
    l.oldest AS oldest_undelivered_at,
    p.failing, p.waiting, p.blocked, p.dead, p.superseded,
    (SELECT count(*) FROM triggerkit.backfills b
     WHERE b.consumer_id = c.id AND b.state = 'active') AS backfills,
    ARRAY(SELECT triggerkit.table_text(b.schema_name, b.table_name) || coalesce(': ' || b.error, '')
     FROM triggerkit.backfills b WHERE b.consumer_id = c.id AND b.state = 'failed'
       AND NOT EXISTS (SELECT FROM triggerkit.backfills n
           WHERE n.consumer_id = c.id AND n.schema_name = b.schema_name
             AND n.table_name = b.table_name AND n.id > b.id)
     ORDER BY b.id) AS failed_backfills,
    (SELECT min(f.since) FROM triggerkit.cursors k CROSS JOIN LATERAL (
        SELECT min(d.sent_at) AS since FROM triggerkit.deliveries d
        WHERE d.consumer_id = c.id AND d.partition = k.partition
          AND d.last_position = k.batch_last AND d.batch_id = k.batch_id
          AND (d.status IS NULL OR d.status NOT BETWEEN 200 AND 299)) f
     WHERE k.consumer_id = c.id AND k.batch_id IS NOT NULL) AS failing_since
FROM triggerkit.consumers c
LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
LEFT JOIN lags l ON l.id = c.id
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.state = 'failing') AS failing,
        count(*) FILTER (WHERE m.state = 'waiting') AS waiting,
        count(*) FILTER (WHERE m.state = 'blocked') AS blocked,
        count(*) FILTER (WHERE m.state = 'dead') AS dead,
        count(*) FILTER (WHERE m.state = 'superseded') AS superseded
    FROM unnest(%(states)s::text[]) s (state) CROSS JOIN LATERAL (
        SELECT k.state FROM triggerkit.parked k
        WHERE k.consumer_id = c.id AND k.state = s.state LIMIT %(parked)s) m) p
ORDER BY c.name
"""

Severity = Literal["error", "warning", "advice"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, by a name that programs know. `remedy` is a command, SQL, or what to do.

    An `error` keeps messages from arriving or has lost some; a `warning` is going to; `advice` only
    costs something.
    """

    name: str
    severity: Severity
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ConsumerHealth:
    """A consumer's state, lag and problems.

    `lag_messages` counts what its cursors have not passed yet, its filters left aside: exactly up
    to `COUNTED` entries of each partition, or fewer among very many consumers, by estimate beyond;
    what was passed over since it is not wanted may count for a minute. `lag_seconds` is the age of
    the oldest counted. `parked` is the sum of its states, each counted up to `PARKED_COUNTED`.
    Ready within a second, however far behind the consumers are. A log on Kafka is counted by the
    stream, every ten seconds: the answer is of then.
    """

    id: int
    name: str
    kind: str
    state: str
    last_error: str | None
    tables: Sequence[str]
    filters: Sequence[str]
    endpoint: str | None
    endpoint_url: str | None
    via: str
    endpoint_disabled_at: datetime | None
    #: Whether its endpoint is local, and how many tunnels to it are open.
    is_local: bool
    tunnels: int
    lag_messages: int
    lag_seconds: float
    oldest_undelivered_at: datetime | None
    failing: int
    waiting: int
    blocked: int
    dead: int
    superseded: int
    backfills: int
    failed_backfills: Sequence[str]
    failing_since: datetime | None
    parked: int = 0
    gap: str | None = None
    gaps: tuple[Gap, ...] = ()
    #: The task whose runs it makes directly.
    task: str | None = None
    problems: tuple[Problem, ...] = ()


async def consumer_health(connection: Reads) -> list[ConsumerHealth]:
    """Return all consumers, by name."""
    parameters = {
        "counted": COUNTED,
        "together": COUNTED_TOGETHER,
        "least": LEAST_COUNTED,
        "partitions": PARTITIONS,
        "parked": PARKED_COUNTED,
        "states": list(PARKED_STATES),
    }
    found, gaps, lags = await asyncio.gather(
        rows_of(connection, _LAG, parameters, into=ConsumerHealth),
        open_gaps(connection),
        counted_lags(connection),
    )
    counted = [
        replace(
            health,
            parked=health.failing
            + health.waiting
            + health.blocked
            + health.dead
            + health.superseded,
            gap="; ".join(gap.cause for gap in gaps.get(health.id, ())) or None,
            gaps=tuple(gaps.get(health.id, ())),
        )
        for health in found
    ]
    counted = [replace(one, **lags[one.id]._asdict()) if one.id in lags else one for one in counted]
    return [replace(health, problems=tuple(problems_of(health))) for health in counted]


def with_losses(
    healths: Sequence[ConsumerHealth], outlooks: Sequence[Outlook]
) -> list[ConsumerHealth]:
    """Return the consumers, also with who is about to lose messages."""
    return [
        replace(health, problems=(*health.problems, *_losses(health, outlooks)))
        for health in healths
    ]


def problems_of(health: ConsumerHealth) -> Iterator[Problem]:
    """Yield the problems of a consumer by itself."""
    yield from _of_state(health)
    yield from _of_gaps(health)
    if is_away := health.is_local and not health.tunnels and health.state == "active":
        waiting = health.lag_messages + health.failing + health.waiting + health.blocked
        wait = "waits" if waiting == 1 else "wait"
        detail = f"no tunnel to {health.endpoint} is open: {_messages(waiting)} {wait} for one"
        yield Problem("tunnel_away", "warning", detail, tunnel_to(health.endpoint))
    if health.failing_since is not None and not is_away:
        detail = f"failing since {_at(health.failing_since)}: {health.last_error or 'no answer'}"
        if health.task is not None:
            remedy = "mend what it names: the runs are made as soon as they can be"
            yield Problem("runs_failing", "error", detail, remedy)
        elif health.via == "kafka":
            remedy = remedy_of(health.last_error or "") or "triggerkit check"
            yield Problem("kafka_failing", "error", detail, remedy)
        else:
            test = f"triggerkit endpoints test {health.endpoint}"
            yield Problem(
                "endpoint_failing", "error", detail, test if health.endpoint else "fix the endpoint"
            )
    yield from _of_parked(health)
    for failed in health.failed_backfills:
        remedy = f"fix what it names, then run: triggerkit backfill start {health.name}"
        yield Problem("backfill_failed", "error", f"the backfill of {failed} failed", remedy)


def tunnel_to(endpoint: str | None) -> str:
    """Return the command that opens a tunnel to a local endpoint."""
    return f"triggerkit tunnel --ports=3001:{endpoint} --server https://…  # with the app's port"


def _of_gaps(health: ConsumerHealth) -> Iterator[Problem]:
    for gap in health.gaps:
        remedy = gap.remedy(health.name)
        remedy += f"  # or: triggerkit consumers accept-gap {health.name}"
        where = "" if gap.table is None else f"changes of {gap.table} are missing: "
        yield Problem("gap", "error", f"{where}{gap.cause}{_between(gap)}", remedy)


def _between(gap: Gap) -> str:
    if gap.from_lsn is None:
        return ""
    to = "now" if gap.to_lsn is None else Lsn(gap.to_lsn)
    return f" (between {Lsn(gap.from_lsn)} and {to})"


def _of_state(health: ConsumerHealth) -> Iterator[Problem]:
    resume = f"triggerkit consumers resume {health.name}"
    if health.state == "paused":
        yield Problem("paused", "warning", "paused: nothing is delivered", resume)
    if health.state == "disabled":
        detail = "disabled: its endpoint answered that it is gone (410)"
        if health.endpoint_disabled_at is not None:
            detail += f" at {_at(health.endpoint_disabled_at)}"
            resume = f"triggerkit endpoints enable {health.endpoint}"
        yield Problem("disabled", "error", detail, f"mend the endpoint, then: {resume}")


def _of_parked(health: ConsumerHealth) -> Iterator[Problem]:
    look = f"triggerkit messages list --consumer {health.name}"
    if health.blocked:
        their = "its attempts, and keeps its key" if health.blocked == 1 else (
            "their attempts, and keep their keys"
        )  # fmt: skip
        detail = f"{_messages(health.blocked)} used up {their} waiting"
        yield Problem("blocked", "error", detail, look)
    if health.failing:
        how = "fails alone, and is" if health.failing == 1 else "fail alone, and are"
        detail = f"{_messages(health.failing)} {how} tried again"
        if health.waiting:
            wait = "waits" if health.waiting == 1 else "wait"
            detail += f"; {health.waiting:,} {wait} behind parked ones of their key"
        yield Problem("failing", "warning", detail, look)
    if health.dead:
        how = "its attempts, and was" if health.dead == 1 else "their attempts, and were"
        detail = f"{_messages(health.dead)} used up {how} skipped"
        yield Problem("dead", "warning", detail, look)
    if health.superseded:
        detail = f"{health.superseded:,} parked messages were superseded: their table was truncated"
        discard = f"triggerkit messages discard {health.name} --all --state superseded"
        yield Problem("superseded", "advice", detail, discard)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _losses(health: ConsumerHealth, outlooks: Sequence[Outlook]) -> Iterator[Problem]:
    for outlook in outlooks:
        for loser in outlook.losers:
            if loser.consumer_id == health.id:
                when = "soon" if outlook.at is None else f"about {_at(outlook.at)}"
                detail = (
                    f"the log is at {outlook.share:.0%} of its limit: {loser.messages:,} messages "
                    f"are dropped {when}, not delivered"
                )
                remedy = "let the consumer catch up, or raise TRIGGERKIT_LOG_MAX_BYTES"
                yield Problem("losing_messages", "warning", detail, remedy)


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
