"""Write what runs say to the journal, and what they change of themselves to their rows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import orjson
import psycopg

from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.run import ClaimedRun
from triggerkit.worker.telemetry.journal import Journal

logger = logging.getLogger(__name__)

#: Fenced by the attempt's number, as an outcome is.
_UPDATE = """
UPDATE triggerkit.runs SET tags = %s, metadata = %s::jsonb
WHERE id = %s AND attempt = %s AND status || '' = 'executing'
"""


class RunNotes:
    """See `Notes`."""

    def __init__(self, journal: Journal, connect: Callable[[], psycopg.Connection]) -> None:
        self._journal = journal
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None

    def put(self, entry: JournalEntry) -> None:
        """See `Notes.put`."""
        self._journal.put(entry)

    def update(self, run: ClaimedRun, tags: list[str], metadata: dict[str, Any]) -> None:
        """See `Notes.update`. While Postgres is away it is only told: the run goes on."""
        parameters = [tags, orjson.dumps(metadata).decode(), run.id, run.attempt]
        with self._lock:
            try:
                self._connection = self._connection or self._connect()
                self._connection.execute(_UPDATE, parameters)
            except psycopg.Error as error:
                logger.warning("the metadata of %s is not stored (%s)", run.id, error)
                self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
