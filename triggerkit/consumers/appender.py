"""Puts what capture reads into the log, with the backfills' rows at their markers' places."""

from __future__ import annotations

from triggerkit.consumers.backfill.scheduler import Backfills
from triggerkit.consumers.backfill.table import MARKER_PREFIX, Survivors
from triggerkit.log.entry import Entry, Pending
from triggerkit.log.followed import Moves, note_moves
from triggerkit.log.writing import Statement, Writing
from triggerkit.lsn import Lsn
from triggerkit.replication import heartbeat
from triggerkit.replication.capture import TransactionPart

#: Held bytes are handed to the server's COPY beyond this.
FLUSH_BYTES = 256 * 1024

#: A transaction that takes more than this is read back from the log by those who deliver it.
KEPT_BYTES = 8 * 1024 * 1024

#: A heartbeat is back, through the WAL and, with this, in the log's database.
_HEARTBEAT = "UPDATE triggerkit.databases SET heartbeat_at = clock_timestamp() WHERE id = %s"


class Appender:
    """Puts what capture reads into the log, with the backfills' rows at their markers' places."""

    def __init__(self, writer: Writing, backfills: Backfills) -> None:
        self._writer = writer
        self._backfills = backfills
        self._survivors: list[Survivors] = []
        self._statements: list[Statement] = []
        #: Where the entries of the last append are, where not all were kept.
        self.moves: Moves | None = None

    @property
    def last_position(self) -> int:
        """Return the position of the last entry written."""
        return self._writer.next_position - 1

    async def append(self, parts: list[TransactionPart]) -> tuple[list[Entry], Lsn | None]:
        """Write `parts`; if the last one ends its transaction, they are durable on return.

        Returns the entries now durable, and the position to confirm: None while the last
        transaction is not complete.
        """
        for part in parts:
            self._backfills.observe(part.transaction.xid, part.changes)
            await self._write(part)
        end = parts[-1]
        if end.end_lsn is None:
            # In the midst of a transaction: written, and committed with its end.
            await self._writer.flush()
            if self._writer.kept_bytes > KEPT_BYTES:
                self._writer.forget()
            return [], None
        entries = await self._writer.commit(
            end.transaction.commit_lsn, self._statements, confirmed_lsn=end.end_lsn
        )
        for survivors in self._survivors:
            survivors.reader.stored()
        self._survivors.clear()
        self._statements.clear()
        forgotten, self._writer.forgotten = self._writer.forgotten, {}
        self.moves = note_moves(entries, forgotten) if forgotten else None
        return entries, end.end_lsn

    async def _write(self, part: TransactionPart) -> None:
        writer, transaction = self._writer, part.transaction
        for sighting in part.sightings:
            await writer.see(sighting)
        for index, change in enumerate(part.changes, part.first_idx):
            held = writer.write(Pending(transaction, index, change, transaction.xid))
            if held > FLUSH_BYTES:
                await writer.flush()
        for message in part.messages:
            if message.prefix == MARKER_PREFIX:
                await self._write_chunk(self._backfills.at_marker(message.content, transaction))
            elif message.prefix == heartbeat.PREFIX:
                self._statements.append(Statement(_HEARTBEAT, [self._writer.database_id]))

    async def _write_chunk(self, survivors: Survivors | None) -> None:
        if survivors is None:
            return
        first = self._writer.next_position
        for pending in survivors.pending:
            self._writer.write(pending)
        if survivors.pending and survivors.sighting is not None:
            await self._writer.read(survivors.sighting, first)
        self._survivors.append(survivors)
        self._statements.append(survivors.progress(self._writer.next_position - 1))


def split_at_last_end(parts: list[TransactionPart]) -> list[list[TransactionPart]]:
    """Transactions that are complete, and the beginning of one that is not: none waits for it."""
    ends = [i for i, part in enumerate(parts, 1) if part.end_lsn is not None]
    middle = ends[-1] if ends else 0
    return [some for some in (parts[:middle], parts[middle:]) if some]
