"""`verify`: whether each row of a task's table has its effect, and none is without its row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg import sql

from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.message import row_key
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.verify.compare import (
    PROBLEMS,
    Found,
    Verifiable,
    mismatches,
)
from triggerkit.supervisor.verify.in_flight import Pipeline, UnderWay
from triggerkit.supervisor.verify.repair import Repair
from triggerkit.tasks.verification import Problem, one_snapshot

#: Rows out of step that are kept until it is known which of them have changed meanwhile.
MOST_KEPT: Final = 100_000

_WAL_END = "SELECT pg_current_wal_insert_lsn()::text"


@dataclass(slots=True)
class Verification:
    """The result of a look at a task's effects.

    `rows` is the number of the table's rows, and `empty` of those that are to have no effect.
    `pending` are out of step too, but with a change or a run on its way, since `pending_since` the
    oldest: they are in none of the `problems`, which count all the others, those that are `parked`
    among them. `listed` has the first of those.
    """

    task: str
    table: str
    rows: int = 0
    problems: Counter[Problem] = field(default_factory=Counter)
    empty: int = 0
    pending: int = 0
    pending_since: datetime | None = None
    #: Those of the pending that are effects without a row.
    pending_orphans: int = 0
    parked: int = 0
    listed: list[Found] = field(default_factory=list)
    under_way: UnderWay = field(default_factory=UnderWay)
    looked_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_true(self) -> bool:
        """Return whether nothing is missing, stale or orphaned."""
        return not self.problems.total()

    @property
    def is_finished(self) -> bool:
        """Return whether nothing that is out of step is on its way."""
        return not self.pending

    @property
    def in_step(self) -> int:
        """Return the number of rows that have their effect."""
        late = self.problems["missing"] + self.problems["stale"]
        return max(0, self.rows - self.empty - late - self.pending + self.pending_orphans)

    @property
    def pending_s(self) -> float | None:
        """Return for how many seconds the oldest of the pending is on its way."""
        if self.pending_since is None:
            return None
        return max(0.0, (self.looked_at - self.pending_since).total_seconds())

    def as_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "task": self.task,
            "table": self.table,
            "true": self.is_true,
            "rows": self.rows,
            "in_step": self.in_step,
            **{problem: self.problems[problem] for problem in PROBLEMS},
            "empty": self.empty,
            "parked": self.parked,
            "pending": self.pending,
            "pending_s": self.pending_s,
            "listed": [{"key": f.key, "problem": f.problem} for f in self.listed],
            "under_way": {
                "messages": self.under_way.messages,
                "runs": self.under_way.runs,
                "backfill": self.under_way.backfill,
            },
        }


@dataclass(frozen=True, slots=True)
class Fixed:
    """The runs that `fix` triggered, and what it found when the runs had ended, or its time was
    over."""

    before: Verification
    repair: Repair
    is_over: bool
    after: Verification


async def verify(settings: Settings, client: Client, found: Verifiable, limit: int) -> Verification:
    """Compare the rows with their effects; at most `limit` mismatches are listed.

    Raises:
        CannotConnect, PreflightFailed, ConfigurationError: see `mismatches`.
    """
    names = CaptureNames.of(settings)
    async with await connect(settings.source_dsn, "triggerkit verify") as source:
        reader = await _reader(source, found)
        return await _Comparison(found, limit, names).run(
            source, await _pipeline(client, source, found), reader
        )


async def fix(
    settings: Settings, client: Client, found: Verifiable, limit: int, wait_s: float
) -> Fixed:
    """Trigger the task for what is out of step, wait for the runs, and look again.

    Raises:
        CannotConnect, PreflightFailed, ConfigurationError: see `mismatches` and `Repair.open`.
    """
    names = CaptureNames.of(settings)
    async with (
        await connect(settings.source_dsn, "triggerkit verify") as source,
        await connect(settings.source_dsn, "triggerkit verify") as rows,
    ):
        reader = await _reader(rows, found)
        pipeline = await _pipeline(client, source, found)
        repair = Repair(rows, client, found, reader, pipeline)
        before = await _Comparison(found, limit, names, repair).run(source, pipeline, reader)
        is_over = await repair.wait(wait_s)
        after = before
        if repair.run_ids:
            pipeline = await _pipeline(client, source, found)
            after = await _Comparison(found, limit, names).run(source, pipeline, reader)
        return Fixed(before, repair, is_over, after)


class _Comparison:
    """One comparison. With a `repair`, what is out of step is triggered batch by batch."""

    def __init__(
        self, found: Verifiable, limit: int, names: CaptureNames, repair: Repair | None = None
    ) -> None:
        self._found = found
        self._names = names
        self._repair = repair
        self._limit = limit
        self._result = Verification(found.task.name, str(found.table))
        self._kept: list[Found] = []

    async def run(
        self, source: psycopg.AsyncConnection, pipeline: Pipeline, reader: ChunkReader
    ) -> Verification:
        """Look, by one snapshot of the source."""
        before = self._result.under_way = await pipeline.under_way()
        if self._repair is not None:
            await self._repair.open()
        async with one_snapshot(source):
            self._result.rows = await _count(source, self._found)
            wal_end = await _wal_end(source)
            async for batch in mismatches(source, self._found, len(reader.key)):
                await self._take(batch, before)
        await self._exempt_recent(source, pipeline, wal_end)
        return self._result

    async def _take(self, batch: list[Found], before: UnderWay) -> None:
        """Count those that are late, and those that are pending."""
        late: list[Found] = []
        for found in batch:
            if found.problem == "empty":
                self._result.empty += 1
            elif (since := self._pending_since(found, before)) is not None:
                self._note_pending(found, since)
            else:
                late.append(found)
        self._result.parked += sum(self._row(found) in before.parked for found in late)
        self._result.problems.update(found.problem for found in late)
        self._kept += late[: MOST_KEPT - len(self._kept)]
        # What is tried again by itself would come after the run that mends it, and be older.
        to_trigger = [f for f in late if not before.parked.get(self._row(f), False)]
        if self._repair is not None and to_trigger:
            await self._repair.trigger(to_trigger)

    def _note_pending(self, found: Found, since: datetime) -> None:
        result = self._result
        result.pending += 1
        result.pending_orphans += found.problem == "orphaned"
        result.pending_since = min(since, result.pending_since or since)

    async def _exempt_recent(
        self, source: psycopg.AsyncConnection, pipeline: Pipeline, wal_end: str
    ) -> None:
        """Take those for pending that were changed so late that they could not be in step yet."""
        changed: set[str] = set()
        if self._kept and self._repair is None:
            async with self._names.slots(source) as slots:
                changed = await pipeline.captured_since_open(slots, wal_end)
        for found in self._kept:
            if self._row(found) in changed:
                self._result.problems[found.problem] -= 1
                self._note_pending(found, self._result.looked_at)
            elif len(self._result.listed) < self._limit:
                self._result.listed.append(found)

    def _pending_since(self, found: Found, under_way: UnderWay) -> datetime | None:
        row = self._row(found)
        if row in under_way.parked:
            return None
        if under_way.backfill_at is not None and found.problem != "orphaned":
            return under_way.rows.get(row, under_way.backfill_at)
        return under_way.rows.get(row)

    def _row(self, found: Found) -> str:
        return row_key(*self._found.table, found.key)


async def _pipeline(client: Client, source: psycopg.AsyncConnection, found: Verifiable) -> Pipeline:
    pipeline = Pipeline(client.pool, found.task.name, found.table)
    await pipeline.open(found.consumer, source.info.dbname)
    return pipeline


async def _reader(source: psycopg.AsyncConnection, found: Verifiable) -> ChunkReader:
    reader = ChunkReader(source, found.table, None)
    await reader.open()
    return reader


async def _count(source: psycopg.AsyncConnection, found: Verifiable) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*found.table))
    row = await (await source.execute(query)).fetchone()
    return int(row[0]) if row else 0


async def _wal_end(source: psycopg.AsyncConnection) -> str:
    row = await (await source.execute(_WAL_END)).fetchone()
    assert row is not None
    return str(row[0])
