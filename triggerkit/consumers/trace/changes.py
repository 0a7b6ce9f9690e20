"""The way of one change: captured, wanted by a consumer or not, delivered, and the runs it made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.known import read_consumers
from triggerkit.consumers.parked.manage import DeliveryAttempt
from triggerkit.consumers.render import IdempotencyKeys
from triggerkit.consumers.source.database import Database
from triggerkit.consumers.trace.runs import TracedRun, runs_made
from triggerkit.consumers.trace.wanted import UnwantedBy, follows, why_not
from triggerkit.errors import TriggerkitError
from triggerkit.log.entry import Entry
from triggerkit.log.json_object import show_object
from triggerkit.log.reader import stored_entry
from triggerkit.log.search import not_searched
from triggerkit.state.reading import Reads, Together, rows_of
from triggerkit.state.short_key import short_key

#: Attempts looked through after a position: those that carried it are the first of them.
NEAR_ATTEMPTS = 1000

#: Replays whose runs are looked for, the latest ones.
REPLAYS = 20

_LOG = "SELECT name, retained_from, next_position, log FROM triggerkit.databases WHERE id = %s"

_CAPTURED = """
SELECT commit_at, captured_at FROM triggerkit.events
WHERE database_id = %s AND partition = %s AND position = %s
"""

_STANDING = """
SELECT k.position, k.batch_id, k.batch_last, k.lease_until, k.settled, c.created_at
FROM triggerkit.cursors k JOIN triggerkit.consumers c ON c.id = k.consumer_id
WHERE k.consumer_id = %s AND k.partition IN (%s, -1)
"""

_PARKED = """
SELECT state, reason, attempts, status, parked_at, due_at FROM triggerkit.parked
WHERE consumer_id = %s AND partition IN (%s, -1) AND position = %s
"""

_ATTEMPTS = """
SELECT batch_id, attempt, messages, sent_at, answered_at, status, error FROM (
    SELECT * FROM triggerkit.deliveries
    WHERE consumer_id = %(consumer)s AND partition IN (%(partition)s, -1)
      AND last_position >= %(position)s
    ORDER BY last_position LIMIT %(near)s) d
WHERE first_position <= %(position)s ORDER BY sent_at, id
"""

State = Literal[
    "not wanted",
    "before it began",
    "waiting",
    "delivering",
    "leased",
    "delivered",
    "parked",
    "passed",
]


@dataclass(frozen=True, slots=True)
class TracedParked:
    """The state of a change's parked message."""

    state: str
    reason: str
    attempts: int
    status: int | None
    parked_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class ConsumerTrace:
    """The way of a change at one consumer. `reason` says why in words where there is more to
    say than the state, and `unwanted` by which part of its definition it does not get it."""

    consumer: str
    state: State
    reason: str | None = None
    lease_until: datetime | None = None
    attempts: Sequence[DeliveryAttempt] = ()
    parked: TracedParked | None = None
    runs: Sequence[TracedRun] = ()
    unwanted: UnwantedBy | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """A change and its way. `record` is the row after it, `changes` has old values."""

    database: str
    position: int
    partition: int
    table: str
    key: list[Any]
    action: str
    commit_lsn: int
    commit_idx: int
    xid: int | None
    committed_at: datetime
    captured_at: datetime
    record: dict[str, Any] | None
    changes: dict[str, Any] | None
    fault: str | None
    consumers: Sequence[ConsumerTrace]


#: The attempts that carried a change, its parked message, and where the consumer's cursor stands.
_Seen = tuple[Sequence[DeliveryAttempt], TracedParked | None, tuple[Any, ...] | None]

#: A consumer, and why it does not want a change.
_Follower = tuple[Consumer, tuple[UnwantedBy, str] | None]

#: A change, and those who follow its table.
_Asked = tuple[Entry, Sequence[_Follower]]


async def trace(
    states: AsyncConnectionPool,
    database_id: int,
    position: int,
    consumer: str | None = None,
    *,
    run_id: str | None = None,
) -> Trace:
    """Return the way of the change at `position`, at all consumers of its table or at the one
    named; with `run_id` that run is in it, too, by whatever way it came of the change.

    It is known as long as the log keeps the change. A few indexed queries per consumer.

    Raises:
        TriggerkitError: the log has no such position, or not any more.
        UnknownConsumer: none is named so.
    """
    async with states.connection() as connection, Together(connection) as reads:
        known, log, entry = await asyncio.gather(
            read_consumers(reads, database_id, consumer),
            rows_of(reads, _LOG, [database_id]),
            stored_entry(reads, database_id, position),
        )
    if entry is None:
        raise _no_entry(log, position)
    # Functions may take long: no connection is held meanwhile.
    way = await _asked(entry, known if consumer is not None else _following(known, entry))
    async with states.connection() as connection:
        [found] = await _traced(connection, log[0][0], database_id, [way], run_id)
    return found


async def traces_of(
    connection: psycopg.AsyncConnection,
    database: Database,
    entries: Sequence[Entry],
    known: Sequence[Consumer],
) -> list[Trace]:
    """Return the ways of changes that were found in the log, at those of the database's consumers
    that follow their tables."""
    ways = [await _asked(entry, _following(known, entry)) for entry in entries]
    return await _traced(connection, database.name, database.id, ways, None)


def _following(known: Sequence[Consumer], entry: Entry) -> list[Consumer]:
    return [one for one in known if follows(one, entry)]


async def _asked(entry: Entry, followers: Sequence[Consumer]) -> _Asked:
    """Ask each consumer why it does not want a change."""
    reasons = await asyncio.gather(*(why_not(one, entry) for one in followers))
    return entry, list(zip(followers, reasons, strict=True))


async def _traced(
    connection: psycopg.AsyncConnection,
    database: str,
    database_id: int,
    ways: Sequence[_Asked],
    run_id: str | None,
) -> list[Trace]:
    async with Together(connection) as reads:
        return await asyncio.gather(
            *(_trace(reads, database, database_id, *way, run_id) for way in ways)
        )


async def _trace(
    reads: Reads,
    database: str,
    database_id: int,
    entry: Entry,
    followers: Sequence[_Follower],
    run_id: str | None,
) -> Trace:
    place = [database_id, entry.partition, entry.position]
    [times], seen = await asyncio.gather(
        rows_of(reads, _CAPTURED, place),
        asyncio.gather(*(_seen(reads, one, entry) for one, _ in followers)),
    )
    ways = await asyncio.gather(
        *(
            _way(reads, one, entry, reason, times[1], run_id, at)
            for (one, reason), at in zip(followers, seen, strict=True)
        )
    )
    return Trace(
        database=database,
        position=entry.position,
        partition=entry.partition,
        table=table_text(entry.schema, entry.table),
        key=orjson.loads(entry.key),
        action=entry.action,
        commit_lsn=entry.commit_lsn,
        commit_idx=entry.commit_idx,
        xid=entry.xid,
        committed_at=times[0],
        captured_at=times[1],
        record=None if entry.record is None else show_object(entry.record),
        changes=_old_values(entry),
        fault=entry.fault,
        consumers=ways,
    )


def _old_values(entry: Entry) -> dict[str, Any] | None:
    if entry.action != "update" or entry.changes is None:
        return None
    return show_object(entry.changes)


def _no_entry(log: Sequence[tuple[Any, ...]], position: int) -> TriggerkitError:
    if not log:
        return TriggerkitError(
            "nothing has been captured yet; create the consumers with: triggerkit apply"
        )
    [(_, retained_from, next_position, place)] = log
    if place == "kafka":
        return not_searched()
    if 0 < position < retained_from:
        return TriggerkitError(
            f"position {position} was dropped from the log, which begins at {retained_from}; "
            "TRIGGERKIT_LOG_KEEP sets how long it keeps delivered changes"
        )
    return TriggerkitError(
        f"the log has no position {position}: it goes from {retained_from} to {next_position - 1}"
    )


async def _seen(reads: Reads, consumer: Consumer, entry: Entry) -> _Seen:
    """Return what there is of a change at a consumer."""
    place = [consumer.id, entry.partition]
    around = {"position": entry.position, "near": NEAR_ATTEMPTS}
    near = {"consumer": consumer.id, "partition": entry.partition, **around}
    attempts, parked, standing = await asyncio.gather(
        rows_of(reads, _ATTEMPTS, near, into=DeliveryAttempt),
        rows_of(reads, _PARKED, [*place, entry.position], into=TracedParked),
        rows_of(reads, _STANDING, place),
    )
    return attempts, next(iter(parked), None), next(iter(standing), None)


async def _way(
    reads: Reads,
    consumer: Consumer,
    entry: Entry,
    unwanted: tuple[UnwantedBy, str] | None,
    captured_at: datetime,
    run_id: str | None,
    seen: _Seen,
) -> ConsumerTrace:
    attempts, parked, row = seen
    if unwanted is not None and parked is None:
        # A batch's attempt spans what is between its messages, too.
        by, why_not = unwanted
        return ConsumerTrace(consumer.name, "not wanted", why_not, unwanted=by)
    state, reason, lease_until = _state(consumer, entry, row, attempts, captured_at)
    if parked is not None:
        state, reason, lease_until = "parked", f"{parked.state}: {parked.reason}", None
    runs = await _runs(reads, consumer, entry, attempts, run_id)
    return ConsumerTrace(consumer.name, state, reason, lease_until, attempts, parked, runs)


def _state(
    consumer: Consumer,
    entry: Entry,
    row: tuple[Any, ...] | None,
    attempts: Sequence[DeliveryAttempt],
    captured_at: datetime,
) -> tuple[State, str | None, datetime | None]:
    if row is None:
        return "waiting", "the consumer has no cursor yet", None
    position, batch_id, batch_last, lease_until, settled, created_at = row
    accepted = [a for a in attempts if a.status is not None and 200 <= a.status <= 299]
    if entry.position <= position or entry.position in settled:
        if accepted or (attempts and consumer.is_pulled):
            return "delivered", None, None
        if captured_at < created_at and entry.consumer_id is None:
            return "before it began", "the consumer was made after this change", None
        return "passed", "its cursor is past it, and no attempt of it is kept", None
    if consumer.state != "active":
        return "waiting", f"the consumer is {consumer.state}", None
    if batch_id is not None and entry.position <= batch_last:
        if lease_until is not None and lease_until < datetime.now(UTC):
            return "waiting", "received by a caller, not acknowledged in time", None
        if lease_until is not None:
            return "leased", "received by a caller, not acknowledged yet", lease_until
        return "delivering", attempts[-1].error if attempts else None, None
    return "waiting", f"its cursor is at position {position}", None


async def _runs(
    reads: Reads,
    consumer: Consumer,
    entry: Entry,
    attempts: Sequence[DeliveryAttempt],
    run_id: str | None,
) -> list[TracedRun]:
    """Return the runs that our own route made of it: known by the batch's id, or the message's own
    key."""
    if not attempts and run_id is None:
        return []
    now = IdempotencyKeys(consumer).of(entry)
    tail = now.removeprefix(f"{consumer.id}.{consumer.replay_epoch}")
    first = max(0, consumer.replay_epoch - REPLAYS)
    replays = range(first, consumer.replay_epoch + 1)
    keys = [short_key(f"{consumer.id}.{number}{tail}") for number in replays]
    keys += dict.fromkeys(attempt.batch_id for attempt in attempts)
    return await runs_made(reads, keys, [] if run_id is None else [run_id])
