"""Why a change of a row is not in the log: it was not captured, or not read by a backfill yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.definition import BEGINNING, TableName
from triggerkit.consumers.gap import Gap, open_gaps
from triggerkit.consumers.source.database import Database
from triggerkit.errors import UnknownConsumer
from triggerkit.log.search import Searched
from triggerkit.state.reading import Reads, rows_of
from triggerkit.why.answer import Cause
from triggerkit.why.consumer_cause import before_consumer
from triggerkit.why.source_row import SourceRow

#: WAL that a stream has in its hands at any time.
LAG_BYTES = 64 * 1024

#: The last backfill of a table, of each consumer.
_BACKFILLS = """
SELECT DISTINCT ON (b.consumer_id) b.consumer_id, b.id, b.state, b.rows_read, b.rows_estimated,
    b.error, b.lower_bound IS NULL AND b.upper_bound ->> 'until' IS NULL AS is_whole
FROM triggerkit.backfills b WHERE b.schema_name = %s AND b.table_name = %s
ORDER BY b.consumer_id, b.id DESC
"""


@dataclass(frozen=True, slots=True)
class _Backfill:
    consumer_id: int
    id: int
    state: str
    rows_read: int
    rows_estimated: int
    error: str | None
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Capture:
    """What the state and the source know of how a table is captured."""

    database: Database
    table: TableName
    consumers: Sequence[Consumer]
    row: SourceRow
    gaps: dict[int, list[Gap]]
    backfills: dict[int, _Backfill]

    @property
    def fault(self) -> Cause | None:
        """Why changes of the table made now do not arrive in the log; None if they do."""
        slot, name = self.row.slot, self.database.slot_name
        again = self._read_anew("triggerkit apply")
        if not self.row.is_published:
            publication = self.database.publication_name
            return Cause(
                "not_published",
                f"{self.table} is not in the publication {publication}: its changes are not sent",
                again,
            )
        if slot is None:
            return Cause(
                "slot_missing",
                f"the replication slot {name} is gone: no change is captured since",
                again,
            )
        if slot.lost_by is not None:
            return Cause(
                "slot_lost",
                f"the replication slot {name} is lost ({slot.lost_by}): no change is captured",
                self._read_anew("triggerkit apply --yes"),
            )
        if slot.active_pid is None:
            return Cause(
                "stream_not_running",
                f"nobody reads the replication slot {name}: changes wait in the server's WAL",
                "triggerkit stream  # and keep it running",
            )
        return None

    @property
    def gap(self) -> Cause | None:
        """A gap that the row's change may have fallen into."""
        for consumer in self.consumers:
            for gap in self.gaps.get(consumer.id, ()):
                if gap.table in (None, str(self.table)):
                    detail = f"changes are missing for {consumer.name}: {gap.cause}"
                    return Cause("gap", detail, gap.remedy(consumer.name, str(self.table)))
        return None

    def backfill(self, consumer: Consumer) -> Cause | None:
        """Return why a row that was there before has not come by a backfill."""
        found, name = self.backfills.get(consumer.id), consumer.name
        if found is None:
            is_later = consumer.definition.start != BEGINNING
            return before_consumer(name, str(self.table)) if is_later else None
        read = f"{found.rows_read:,} of about {found.rows_estimated:,} rows are read"
        what = f"the backfill {found.id} of {self.table} for {name}"
        if found.state == "active":
            return Cause("backfill_pending", f"{what} has not reached it yet: {read}")
        if found.state == "paused":
            remedy = f"triggerkit backfill resume {found.id}"
            return Cause("backfill_paused", f"{what} is paused: {read}", remedy)
        start = f"triggerkit backfill start {name} --table {quote(str(self.table))}"
        if found.state in ("failed", "canceled"):
            error = f": {found.error}" if found.error else ""
            return Cause("backfill_failed", f"{what} is {found.state}{error}; {read}", start)
        if not found.is_whole:
            return before_consumer(name, str(self.table))
        return None

    def _read_anew(self, first: str) -> str:
        starts = [
            f"triggerkit backfill start {consumer.name} --table {quote(str(self.table))}"
            for consumer in self.consumers
        ]
        return " && ".join([first, *starts])


def followers_of(known: Sequence[Consumer], table: TableName, name: str | None) -> list[Consumer]:
    """Return those who follow a table, or of them the one that is named.

    Raises:
        UnknownConsumer: none is named so.
    """
    if name is not None and name not in (names := sorted(one.name for one in known)):
        raise UnknownConsumer(name, names)
    return [
        one for one in known if name in (None, one.name) and str(table) in one.definition.tables
    ]


async def capture_of(reads: Reads, database: Database, table: TableName, row: SourceRow) -> Capture:
    """Return how a table is captured; who follows it is not known yet."""
    found, gaps = await asyncio.gather(
        rows_of(reads, _BACKFILLS, table, into=_Backfill), open_gaps(reads)
    )
    backfills = {one.consumer_id: one for one in found}
    return Capture(database, table, (), row, gaps, backfills)


def not_captured(capture: Capture, searched: Searched, *, is_sure: bool) -> Iterator[Cause]:
    """Yield why the row as it is now did not come into the log, the surest first.

    Unless it `is_sure` that it did not, a stream that does not run says nothing.
    """
    for cause in (capture.fault, capture.gap):
        if cause is not None and (is_sure or cause.code != "stream_not_running"):
            yield cause
    if searched.entries or not is_sure:
        return
    for consumer in capture.consumers:
        if (cause := capture.backfill(consumer)) is not None:
            yield cause
    slot = capture.row.slot
    if slot is not None and (slot.lag_bytes or 0) > LAG_BYTES:
        behind = f"{(slot.lag_bytes or 0) / 1e6:,.1f} MB"
        yield Cause(
            "not_captured_yet", f"the stream is {behind} behind, and has not come to it yet"
        )


def not_in_log(capture: Capture, searched_from: int, *, is_whole: bool) -> Cause:
    """Return that a row is there and no change of it was found."""
    where = "the log has no change of it" if is_whole else (
        f"no change of it is in the log from position {searched_from} on; it may be older"
    )  # fmt: skip
    names = [consumer.name for consumer in capture.consumers]
    table = quote(str(capture.table))
    starts = [f"triggerkit backfill start {name} --table {table}" for name in names]
    return Cause("not_in_log", f"the row is there, and {where}", " && ".join(starts) or None)


def is_captured(row: SourceRow, searched: Searched) -> bool | None:
    """Return whether the row as it is now is in the log; None where nothing tells."""
    entries = searched.entries
    if not row.is_readable:
        return None
    if row.xmin is None:
        return not entries or entries[0].action == "delete"
    # The transaction's number as the row has it, without its epoch.
    xids = {entry.xid & 0xFFFFFFFF for entry in entries if entry.xid is not None}
    if row.xmin in xids:
        return True
    # A backfill's entry has no transaction; and a savepoint's writes are by another one.
    return None if entries and entries[0].action == "read" else False


def nowhere(capture: Capture, searched: Searched) -> Cause:
    """Return that nothing is known of the row, or of a change of it."""
    if capture.row.is_readable and capture.row.xmin is None:
        key = " ".join(capture.row.values)
        return Cause(
            "row_unknown",
            f"{capture.table} has no row {key}, and the log from position "
            f"{searched.searched_from} on has no change of one",
        )
    return not_in_log(capture, searched.searched_from, is_whole=searched.is_whole)
