"""What was confirmed to the source, and what the log had then: for the checker to compare."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Self

import psycopg

from tests.faults.rig import truth
from tests.faults.rig.history import AckSample


class Sampler:
    """Notes what is confirmed and what is in the log, every so many seconds."""

    def __init__(self, url: str, slot: str, every_s: float) -> None:
        self._every_s = every_s
        self.samples: list[AckSample] = []
        self._url = url
        self._slot = slot
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection,
            ):
                while not self._stop.wait(self._every_s):
                    self._sample(connection)
            self._stop.wait(self._every_s)

    def _sample(self, connection: truth.Connection) -> None:
        # In this order: what was confirmed then must be in the log now.
        confirmed = connection.execute(
            "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint FROM pg_replication_slots "
            "WHERE slot_name = %s",
            [self._slot],
        ).fetchone()
        logged = connection.execute(
            "SELECT coalesce(max(commit_lsn), 0) FROM triggerkit.events"
        ).fetchone()
        if confirmed and logged and confirmed[0] is not None:
            self.samples.append(AckSample(confirmed[0], logged[0]))
