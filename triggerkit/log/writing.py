"""What every writer of a log can do, and the statements by which the state knows of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from triggerkit.log.entry import Entry, Pending
from triggerkit.log.followed import Moves
from triggerkit.replication.sighting import Sighting

#: Takes over the log: from now on the previous writer is refused.
OPEN = """
UPDATE triggerkit.databases SET writer_epoch = writer_epoch + 1 WHERE id = %s
RETURNING writer_epoch, next_position, last_commit_lsn, epoch_position, slot_epoch
"""

#: Moves the log's head. No row comes back when another writer took over.
ADVANCE = """
UPDATE triggerkit.databases SET next_position = %s,
    last_commit_lsn = greatest(last_commit_lsn, %s), confirmed_lsn = greatest(confirmed_lsn, %s)
WHERE id = %s AND writer_epoch = %s AND next_position = %s
"""


class Statement(NamedTuple):
    """A statement that must be committed together with an append."""

    query: str
    parameters: Sequence[Any]


class Writing(Protocol):
    """The one writer of a database's log, wherever that is.

    Guarantee: what was written is durable, once, at ascending positions and in the order of `write`
    when `commit` returns, and only then. One that another took over from is refused.
    """

    database_id: int
    epoch: int
    epoch_position: int
    slot_epoch: int
    next_position: int
    last_commit_lsn: int
    kept_bytes: int
    forgotten: Moves

    def write(self, pending: Pending) -> int:
        """Add one change to the append; return the bytes now held in memory."""

    async def see(self, sighting: Sighting) -> None:
        """Take in what is seen of a relation, whose changes are written after it."""

    async def read(self, sighting: Sighting, first: int) -> None:
        """Take in what a backfill saw of the table whose rows it wrote, from position `first`
        on."""

    async def flush(self) -> None:
        """Hand on what is held in memory, not yet committed."""

    def forget(self) -> None:
        """Drop the entries kept for `commit` to return."""

    async def commit(
        self,
        last_commit_lsn: int,
        also: Sequence[Statement] = (),
        *,
        confirmed_lsn: int | None = None,
    ) -> list[Entry]:
        """Make the append durable, and known to the state with the statements in `also`; return
        the entries, if they were kept."""
