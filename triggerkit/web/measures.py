"""Measure for `/metrics`: the state, in a few bounded queries, as families of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import psycopg
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from triggerkit.consumers.definition import IS_PULLED
from triggerkit.consumers.health import ConsumerHealth, consumer_health
from triggerkit.consumers.parked.states import PARKED_STATES
from triggerkit.consumers.retention import Policy
from triggerkit.log.entry import PARTITIONS
from triggerkit.log.retention import table_partitions
from triggerkit.replication.slot.slot_state import read_slot
from triggerkit.runs.admin.backlog import backlog
from triggerkit.runs.admin.unfinished import count_unfinished

#: Upper bounds of the delivery durations' buckets, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: Deliveries taken in by one scrape at most.
MOST_DELIVERIES = 1_000_000


_DATABASES = """
SELECT d.id, d.name, d.slot_name, d.next_position - d.retained_from,
    extract(epoch FROM clock_timestamp() - d.heartbeat_at)::float,
    (SELECT extract(epoch FROM e.captured_at - e.commit_at)::float
     FROM generate_series(0, %s) p JOIN triggerkit.events e ON e.database_id = d.id
        AND e.partition = p AND e.position = d.next_position - 1)
FROM triggerkit.databases d ORDER BY d.name
"""

_LAST_DELIVERY = "SELECT coalesce(max(id), 0) FROM triggerkit.deliveries"

_DELIVERIES = f"""
SELECT c.name, CASE WHEN {IS_PULLED} THEN 'pulled' WHEN d.status IS NULL THEN 'unanswered'
        WHEN d.status BETWEEN 200 AND 299 THEN 'delivered'
        WHEN d.status BETWEEN 400 AND 499 THEN 'refused' ELSE 'failed' END AS outcome,
    width_bucket(extract(epoch FROM d.answered_at - d.sent_at)::float, %s::float[]) AS bucket,
    count(*), sum(d.messages)::bigint,
    coalesce(sum(extract(epoch FROM d.answered_at - d.sent_at)), 0)::float
FROM triggerkit.deliveries d JOIN triggerkit.consumers c ON c.id = d.consumer_id
WHERE d.id > %s AND d.id <= %s GROUP BY 1, 2, 3
"""  # noqa: S608 - of constants

_BACKFILLS = """
SELECT c.name, triggerkit.table_text(b.schema_name, b.table_name), b.rows_read, b.rows_estimated
FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id
WHERE b.state IN ('active', 'paused') ORDER BY 1, 2
"""


_TUNNELS = """
SELECT e.name, count(t.id) FROM triggerkit.endpoints e
LEFT JOIN triggerkit.open_tunnels t ON t.endpoint_id = e.id
WHERE e.local GROUP BY e.name ORDER BY e.name
"""


@dataclass(slots=True)
class Deliveries:
    """Deliveries counted since this process's first scrape: each scrape adds those since the last.

    A delivery is counted by the second scrape after it: one that got its number earlier may be
    committed later, and would be missed.
    """

    done: int | None = None
    ceiling: int = 0
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    buckets: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    async def take_in(self, state: psycopg.AsyncConnection) -> None:
        """Add what was noted up to the scrape before."""
        cursor = await state.execute(_LAST_DELIVERY)
        row = await cursor.fetchone()
        last = 0 if row is None else int(row[0])
        if self.done is None:
            self.done = last
        until = min(self.ceiling, self.done + MOST_DELIVERIES)
        if until > self.done:
            cursor = await state.execute(_DELIVERIES, [list(BUCKETS), self.done, until])
            for name, outcome, bucket, count, messages, seconds in await cursor.fetchall():
                self._add(name, outcome, bucket, count, messages, seconds)
            self.done = until
        self.ceiling = last

    def _add(
        self, name: str, outcome: str, bucket: int | None, count: int, messages: int, seconds: float
    ) -> None:
        self.attempts[name, outcome] += count
        if outcome in ("delivered", "pulled"):
            self.messages[name] += messages
        if bucket is not None and outcome != "pulled":
            self.buckets[name, bucket] += count
            # Counters hold fractions as well as whole numbers.
            self.seconds[name] += seconds  # type: ignore[assignment]

    def families(self) -> Iterator[Metric]:
        """Yield the counters."""
        attempts = _counter(
            "triggerkit_deliveries", "Delivery attempts of batches.", ["consumer", "outcome"]
        )
        for (name, outcome), count in sorted(self.attempts.items()):
            attempts.add_metric([name, outcome], count)
        yield attempts
        messages = _counter(
            "triggerkit_delivered_messages", "Messages in batches that were taken.", ["consumer"]
        )
        for name, count in sorted(self.messages.items()):
            messages.add_metric([name], count)
        yield messages
        durations = HistogramMetricFamily(
            "triggerkit_delivery_duration_seconds",
            "From a push's first byte to its answer.",
            labels=["consumer"],
        )
        for name in sorted({name for name, _ in self.buckets}):
            counts = [self.buckets[name, number] for number in range(len(BUCKETS) + 1)]
            bounds = [*map(str, BUCKETS), "+Inf"]
            durations.add_metric(
                [name],
                list(zip(bounds, map(float, accumulate(counts)), strict=True)),
                self.seconds[name],
            )
        yield durations


async def measure(
    state: psycopg.AsyncConnection,
    source: psycopg.AsyncConnection | None,
    policy: Policy,
    deliveries: Deliveries,
) -> list[Metric]:
    """Return all families, in the order of the way: capture, log, consumers, deliveries, runs.

    Without `source` the slots are left out.
    """
    found = [*await _databases(state, source, policy)]
    found += _consumers(await consumer_health(state))
    await deliveries.take_in(state)
    found += deliveries.families()
    found.append(await _tunnels(state))
    found += await _backfills(state)
    found.append(await _runs(state))
    found += await _backlog(state)
    return found


async def _databases(
    state: psycopg.AsyncConnection, source: psycopg.AsyncConnection | None, policy: Policy
) -> Sequence[Metric]:
    names = ["database"]
    active = _gauge("triggerkit_slot_active", "1 while a stream reads the slot.", names)
    lag = _gauge("triggerkit_slot_lag_bytes", "WAL that is not in the log yet.", names)
    safe = _gauge(
        "triggerkit_slot_safe_wal_bytes", "WAL until the server drops the slot, if it may.", names
    )
    delay = _gauge(
        "triggerkit_capture_lag_seconds", "From the newest change's commit to the log.", names
    )
    heartbeat = _gauge(
        "triggerkit_heartbeat_age_seconds", "Since the stream's last heartbeat.", names
    )
    entries = _gauge("triggerkit_log_entries", "Changes in the log.", names)
    size = _gauge("triggerkit_log_bytes", "Size of the log with its indexes.", names)
    limit = _gauge("triggerkit_log_max_bytes", "Size at which the oldest part is dropped.", names)
    cursor = await state.execute(_DATABASES, [PARTITIONS - 1])
    for database_id, name, slot_name, count, age_s, lag_s in await cursor.fetchall():
        log_bytes = sum(p.size_bytes for p in await table_partitions(state, database_id))
        slot = None if source is None else await read_slot(source, slot_name)
        if slot is not None:
            active.add_metric([name], slot.active_pid is not None)
        for family, value in (
            (lag, None if slot is None else slot.lag_bytes),
            (safe, None if slot is None else slot.safe_wal_bytes),
            (delay, lag_s),
            (heartbeat, age_s),
            (entries, count),
            (size, log_bytes),
            (limit, policy.max_bytes),
        ):
            if value is not None:
                family.add_metric([name], value)
    return active, lag, safe, delay, heartbeat, entries, size, limit


def _consumers(health: Sequence[ConsumerHealth]) -> Iterable[Metric]:
    names = ["consumer"]
    messages = _gauge(
        "triggerkit_consumer_lag_messages", "Changes that a consumer has not got yet.", names
    )
    seconds = _gauge("triggerkit_consumer_lag_seconds", "Age of the oldest of them.", names)
    active = _gauge("triggerkit_consumer_active", "0 while paused or disabled.", names)
    parked = _gauge(
        "triggerkit_parked_messages", "Messages that are set aside.", ["consumer", "state"]
    )
    problems = _gauge(
        "triggerkit_consumer_problems", "As triggerkit status tells.", ["consumer", "severity"]
    )
    for consumer in health:
        name = consumer.name
        messages.add_metric([name], consumer.lag_messages)
        seconds.add_metric([name], consumer.lag_seconds)
        active.add_metric([name], consumer.state == "active")
        for state in PARKED_STATES:
            parked.add_metric([name, state], getattr(consumer, state))
        counted = Counter(problem.severity for problem in consumer.problems)
        problems.add_metric([name, "error"], counted["error"])
        problems.add_metric([name, "warning"], counted["warning"])
    return messages, seconds, active, parked, problems


async def _tunnels(state: psycopg.AsyncConnection) -> Metric:
    tunnels = _gauge(
        "triggerkit_open_tunnels",
        "Tunnels open to a local endpoint; its messages wait at 0.",
        ["endpoint"],
    )
    cursor = await state.execute(_TUNNELS)
    for name, count in await cursor.fetchall():
        tunnels.add_metric([name], count)
    return tunnels


async def _backfills(state: psycopg.AsyncConnection) -> Iterable[Metric]:
    names = ["consumer", "table"]
    read = _gauge("triggerkit_backfill_rows", "Rows that an open backfill has read.", names)
    total = _gauge("triggerkit_backfill_estimated_rows", "Rows that it has to read.", names)
    cursor = await state.execute(_BACKFILLS)
    for name, table, rows_read, rows_estimated in await cursor.fetchall():
        read.add_metric([name, table], rows_read)
        total.add_metric([name, table], rows_estimated)
    return read, total


async def _runs(state: psycopg.AsyncConnection) -> Metric:
    runs = _gauge(
        "triggerkit_queue_runs", "Unfinished runs that wait for no other.", ["queue", "status"]
    )
    for (queue, status), count in (await count_unfinished(state, "queue")).items():
        runs.add_metric([queue, status], count)
    return runs


async def _backlog(state: psycopg.AsyncConnection) -> Iterable[Metric]:
    runs = _gauge("triggerkit_backlog_runs", "Runs that wait for a worker, up to 5,000.", ["queue"])
    oldest = _gauge("triggerkit_backlog_oldest_seconds", "Since when the oldest waits.", ["queue"])
    for queue in await backlog(state):
        runs.add_metric([queue.queue], queue.runs)
        oldest.add_metric([queue.queue], queue.oldest_seconds)
    return runs, oldest


def _gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, labels: list[str]) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)
