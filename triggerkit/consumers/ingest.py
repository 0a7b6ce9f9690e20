"""From the stream into the log: reading goes on while what was read before is being committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from triggerkit.consumers.appender import Appender, split_at_last_end
from triggerkit.log.entry import Entry
from triggerkit.log.followed import Moves
from triggerkit.replication.capture import Capture
from triggerkit.replication.read_ahead import ReadAhead

#: Most bytes that are read ahead of the log.
READ_AHEAD_BYTES = 4 * 1024 * 1024

#: Seconds between the beginnings of two appends at least, as long as little waits: the source pays
#: for every commit of the log, and for every look at the stream. A change that comes to an idle
#: stream waits for none of it.
PACE_S = 0.01

#: What is no little any more, in bytes of frames.
PACED_BYTES = 64 * 1024

#: Told what is in the log now: the entries, if they were kept, the last position, whether much more
#: was read already, and where all entries are if not all were kept.
Appended = Callable[[list[Entry], int, bool, Moves | None], None]


async def ingest(capture: Capture, appender: Appender, appended: Appended) -> None:
    """Append what `capture` reads, tell `appended`, confirm what is durable; until canceled.

    An append takes all that came while the one before it was committed.

    Raises:
        ProtocolError, SlotError, Fenced, psycopg.OperationalError: the stream or the log is lost.
    """
    ahead = ReadAhead(READ_AHEAD_BYTES)
    async with asyncio.TaskGroup() as group:
        group.create_task(_read(capture, ahead), name="read the stream")
        # In the group's own task: on Python 3.11 a group that only waits keeps its task canceled.
        await _append(capture, ahead, appender, appended)


async def _read(capture: Capture, ahead: ReadAhead) -> None:
    while True:
        parts = await capture.read()
        await ahead.put(parts, capture.read_bytes)
        # A stream that always has more would let nobody else go on; and what comes by the single
        # transaction stays in the socket until the next append may begin.
        is_little = ahead.size_bytes < PACED_BYTES
        await asyncio.sleep(max(0.0, ahead.due_at - monotonic()) if is_little else 0)


async def _append(
    capture: Capture, ahead: ReadAhead, appender: Appender, appended: Appended
) -> None:
    while True:
        parts = await ahead.take()
        ahead.due_at = monotonic() + PACE_S
        for some in split_at_last_end(parts):
            entries, confirmed = await appender.append(some)
            if confirmed is not None:
                is_growing = ahead.size_bytes >= PACED_BYTES
                appended(entries, appender.last_position, is_growing, appender.moves)
                capture.confirm(confirmed)
        await ahead.wait_until_due(PACED_BYTES)
