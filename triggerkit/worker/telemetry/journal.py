"""Write what runs say to the state in bulk: spans, and lines that they log or print."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.run import storable
from triggerkit.state.faults import is_away
from triggerkit.state.threads import LastingThread

logger = logging.getLogger(__name__)

#: Longest line that is kept, in characters, and most entries of one attempt.
MAX_LINE = 8_000
MAX_ENTRIES = 2_000

#: Most entries that wait to be written; what comes while so many wait is counted and left out.
MAX_WAITING = 20_000

#: Most attempts whose entries are counted: more than execute at once. What speaks after its
#: attempt's end is counted too, and nothing closes it.
MAX_COUNTED = 10_000

#: Seconds for which entries are gathered, and between tries while Postgres is away.
GATHER_S = 0.1
RETRY_S = 0.5

_COPY = """
COPY triggerkit.spans (run_id, attempt, kind, span_id, parent, name, level, attributes, error,
    started_at, ended_at) FROM STDIN
"""


@dataclass(slots=True)
class _Counts:
    entries: int = 0
    left_out: int = 0


@dataclass(slots=True)
class Journal:
    """A thread that writes entries; `put` never blocks."""

    connect: Callable[[], psycopg.Connection]
    _queue: queue.SimpleQueue[JournalEntry | None] = field(default_factory=queue.SimpleQueue)
    _counts: dict[tuple[str, int], _Counts] = field(default_factory=dict)
    _connection: psycopg.Connection | None = None
    _thread: LastingThread | None = None
    _has_ended: bool = False

    def start(self) -> None:
        """Start writing."""
        self._thread = LastingThread(self._run, "journal")
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, then end."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def put(self, entry: JournalEntry) -> None:
        """Have `entry` written, unless its attempt has said too much already."""
        counts = self._counts_of(entry)
        if counts.entries >= MAX_ENTRIES or self._queue.qsize() >= MAX_WAITING:
            counts.left_out += 1
            return
        counts.entries += 1
        self._queue.put(_storable(entry))

    def _counts_of(self, entry: JournalEntry) -> _Counts:
        attempt = entry.run_id, entry.attempt
        counts = self._counts.get(attempt)
        if counts is None:
            counts = self._counts.setdefault(attempt, _Counts())
            # Another thread may change them meanwhile; the next one forgets then.
            with contextlib.suppress(RuntimeError):
                if len(self._counts) > MAX_COUNTED:
                    self._counts.pop(next(iter(self._counts)), None)
        return counts

    def close(self, run_id: str, attempt: int, now: datetime) -> None:
        """Note that an attempt has ended: tell what was left out of it."""
        counts = self._counts.pop((run_id, attempt), None)
        if counts is not None and counts.left_out:
            text = f"… {counts.left_out} more lines and spans were left out"
            self._queue.put(
                JournalEntry(
                    run_id, attempt, "log", None, None, text, "warning", "{}", None, now, None
                )
            )

    def _run(self) -> None:
        while not self._has_ended:
            entries, self._has_ended = self._gather()
            if entries:
                self._write(entries)
        self._disconnect()

    def _gather(self) -> tuple[list[JournalEntry], bool]:
        """Gather what comes within a moment; tell whether nothing comes any more."""
        entries: list[JournalEntry] = []
        item = self._queue.get()
        until = time.monotonic() + GATHER_S
        while item is not None:
            entries.append(item)
            if len(entries) >= MAX_ENTRIES:
                return entries, False
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return entries, False
        return entries, True

    def _write(self, entries: list[JournalEntry]) -> None:
        while True:
            try:
                self._connection = self._connection or self.connect()
                with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                    for entry in entries:
                        copy.write_row(entry)
                return
            except psycopg.Error as error:
                if is_away(error):
                    logger.warning("lines and spans of runs wait for Postgres (%s)", error)
                    self._disconnect()
                    time.sleep(RETRY_S)
                    continue
                if len(entries) > 1:
                    # One that cannot be stored must not take others with it.
                    for entry in entries:
                        self._write([entry])
                else:
                    logger.error("cannot store a line of %s: %s", entries[0].run_id, error)
                return

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _storable(entry: JournalEntry) -> JournalEntry:
    name = storable(entry.name)
    if len(name) > MAX_LINE:
        name = f"{name[:MAX_LINE]}… ({len(name):,} characters, the rest was left out)"
    return entry._replace(name=name, error=None if entry.error is None else storable(entry.error))
