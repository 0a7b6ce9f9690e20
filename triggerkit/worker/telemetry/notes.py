"""What runs say goes to the journal, what they change of themselves to their rows."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

import orjson
import psycopg

from triggerkit.errors import NotDurable
from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.run import ClaimedRun
from triggerkit.state.faults import is_away
from triggerkit.state.threads import LastingThread
from triggerkit.worker.telemetry.journal import Journal

logger = logging.getLogger(__name__)

#: Seconds for which a change is tried, and that an outcome waits for what its run changed before.
PATIENCE_S = 5.0

#: Seconds between tries.
RETRY_S = 0.1

#: Fenced by the attempt's number, as an outcome is. The attempt may have ended meanwhile.
_UPDATE = """
UPDATE triggerkit.runs SET tags = %s, metadata = %s::jsonb WHERE id = %s AND attempt = %s
"""


class _Update(NamedTuple):
    run: ClaimedRun
    tags: list[str]
    metadata: dict[str, Any]
    written: Future[None]
    #: Until when it is tried again (monotonic seconds).
    until: float


class RunNotes:
    """See `Notes`. A thread writes what runs change: Postgres may take its time."""

    def __init__(self, journal: Journal, connect: Callable[[], psycopg.Connection]) -> None:
        self._journal = journal
        self._connect = connect
        self._queue: queue.SimpleQueue[_Update | None] = queue.SimpleQueue()
        self._thread = LastingThread(self._write_all, "notes")
        self._connection: psycopg.Connection | None = None
        #: By run, what is written last of it, until it is.
        self._last: dict[str, Future[None]] = {}
        self._lasting = threading.Lock()

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, entry: JournalEntry) -> None:
        """See `Notes.put`."""
        self._journal.put(entry)

    def update(self, run: ClaimedRun, tags: list[str], metadata: dict[str, Any]) -> Future[None]:
        """See `Notes.update`. While Postgres stays away the future fails: the run
        goes on, and what it changes next is written with what it changed before."""
        written: Future[None] = Future()
        with self._lasting:
            self._last[run.id] = written
        self._queue.put(_Update(run, tags, metadata, written, time.monotonic() + PATIENCE_S))
        return written

    def wait_for(self, run_ids: Iterable[str]) -> None:
        """Wait until what these runs changed is written, but not for long; they have ended."""
        for run_id in run_ids:
            if (written := self._last.get(run_id)) is not None:
                wait([written], PATIENCE_S)

    def stop(self) -> None:
        """Write what is left, then end."""
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        while (update := self._queue.get()) is not None:
            try:
                self._write(update)
            except Exception as error:
                logger.warning("the metadata of %s is not stored (%s)", update.run.id, error)
                told = NotDurable(f"the tags and metadata of {update.run.id} could not be stored")
                told.__cause__ = error
                update.written.set_exception(told)
            else:
                update.written.set_result(None)
            self._forget(update)
        self._disconnect()

    def _forget(self, update: _Update) -> None:
        with self._lasting:
            if self._last.get(update.run.id) is update.written:
                del self._last[update.run.id]

    def _write(self, update: _Update) -> None:
        run = update.run
        metadata = orjson.dumps(update.metadata).decode()
        while True:
            try:
                self._connection = self._connection or self._connect()
                self._connection.execute(_UPDATE, [update.tags, metadata, run.id, run.attempt])
                return
            except psycopg.Error as error:
                self._disconnect()
                # Written twice does no harm: the attempt's number fences it.
                if not is_away(error) or time.monotonic() >= update.until:
                    raise
            time.sleep(RETRY_S)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
