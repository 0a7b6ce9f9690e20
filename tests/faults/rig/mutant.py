"""The stream process with one thing broken on purpose: what the checker must notice.

Run as `python -m tests.faults.rig.mutant MUTATION`, for as long as it lives a `triggerkit stream`.
The faults are the same for all: rows change between the reading of a chunk and its marker,
and the process is killed in the midst of a commit, some times over (a file in the folder
`TRIGGERKIT_TEST_KILLS` per time).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from triggerkit.cli.main import run
from triggerkit.consumers.backfill.opened import Reached
from triggerkit.consumers.backfill.rows import Chunk
from triggerkit.consumers.backfill.snapshot import TouchedKeys
from triggerkit.consumers.backfill.table import TableBackfill
from triggerkit.log.entry import Entry, Pending
from triggerkit.log.writer import LogWriter
from triggerkit.log.writing import Statement
from triggerkit.replication.capture import Capture, TransactionPart
from triggerkit.replication.codec import tuples
from triggerkit.replication.codec.frames import PrimaryKeepalive

KILLS_VARIABLE = "TRIGGERKIT_TEST_KILLS"

#: Times the process is killed, and at which of its commits.
KILLS = 3
KILLED_AT = 6

#: Seconds before a commit (and a kill), in which what was confirmed reaches the server.
BEFORE_COMMIT_S = 0.1


def change_rows_between_chunk_and_marker() -> None:
    """The first two rows of each chunk change after they were read."""
    store = TableBackfill._store

    async def changed(
        self: TableBackfill,
        source: psycopg.AsyncConnection,
        chunk: Chunk,
        reached: Reached,
        **options: bool,
    ) -> bool:
        for row, query in zip(
            chunk.rows,
            (
                "UPDATE public.items SET version = nextval('truth.versions') WHERE id = %s",
                "DELETE FROM public.items WHERE id = %s",
            ),
            strict=False,
        ):
            await source.execute(query, [int(row.key[0])])
        return await store(self, source, chunk, reached, **options)

    _replace(TableBackfill, "_store", changed)


def die_in_commits() -> None:
    """Kill the process at one of its commits."""
    commit = LogWriter.commit
    folder = os.environ[KILLS_VARIABLE]
    count = 0

    async def killed(
        self: LogWriter,
        last_commit_lsn: int,
        also: Sequence[Statement] = (),
        *,
        confirmed_lsn: int | None = None,
    ) -> list[Entry]:
        nonlocal count
        count += 1
        await asyncio.sleep(BEFORE_COMMIT_S)
        died = len(os.listdir(folder))
        if count == KILLED_AT and died < KILLS:
            os.close(os.open(f"{folder}/{died}", os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)
        return await commit(self, last_commit_lsn, also, confirmed_lsn=confirmed_lsn)

    _replace(LogWriter, "commit", killed)


def nothing() -> None:
    """The product as it is."""


def confirm_before_persist() -> None:
    """What is read is confirmed before it is in the log."""
    read = Capture.read

    async def early(self: Capture) -> list[TransactionPart]:
        parts = await read(self)
        for part in parts:
            if part.end_lsn is not None:
                self._connection.confirm(part.end_lsn)
        return parts

    _replace(Capture, "read", early)


def confirm_wal_end_in_flight() -> None:
    """A keepalive's position is confirmed whatever is in flight."""

    def always(self: Capture, keepalive: PrimaryKeepalive) -> None:
        self._connection.confirm(keepalive.wal_end)

    _replace(Capture, "_on_keepalive", always)


def identify_by_lsn() -> None:
    """All changes of a transaction have one identity: that of its commit."""
    write = LogWriter.write

    def without_index(self: LogWriter, pending: Pending) -> int:
        return write(self, pending._replace(commit_idx=0))

    _replace(LogWriter, "write", without_index)


def no_touched_keys() -> None:
    """A backfill drops no row that was changed in the meantime."""
    _replace(TouchedKeys, "is_stale", lambda *_: False)


def unchanged_is_null() -> None:
    """An unchanged TOASTed value is taken for NULL."""
    _replace(tuples, "UNCHANGED_TOAST", None)
    tuples._WITHOUT_TEXT[ord("u")] = None


MUTATIONS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        nothing,
        confirm_before_persist,
        confirm_wal_end_in_flight,
        identify_by_lsn,
        no_touched_keys,
        unchanged_is_null,
    )
}


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, value)


if __name__ == "__main__":
    change_rows_between_chunk_and_marker()
    die_in_commits()
    MUTATIONS[sys.argv[1]]()
    sys.argv[1:] = ["stream"]
    run()
