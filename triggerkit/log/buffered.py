"""Read the log for one cursor: what was read and not used is kept for the next read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, takewhile
from operator import attrgetter

from triggerkit.log.entry import Entry
from triggerkit.log.reader import LogReader

#: Entries looked at in one read when a filter leaves few of them.
READ_LIMIT = 512

#: Bytes of entries that are kept.
KEPT_BYTES = 256 * 1024

_position = attrgetter("position")


class BufferedReader:
    """Reads one partition, or all, from position to position onward."""

    def __init__(self, reader: LogReader, partition: int) -> None:
        self._reader = reader
        self._partition = partition
        # All the entries there are from a position on, up to the last one here.
        self._kept: list[Entry] = []
        self._kept_after = 0

    async def read(self, after: int, enough: int) -> Sequence[Entry]:
        """Return entries after position `after`, in order: at least `enough`, if there are."""
        if self._kept_after <= after:
            left = self._kept[bisect_right(self._kept, after, key=_position) :]
            if len(left) >= enough:
                self._kept, self._kept_after = left, after
                return left
        # Where more than one read of these is enough, there would be next to nothing to keep.
        limit = enough if 2 * enough > READ_LIMIT else READ_LIMIT
        entries = await self._reader.read(self._partition, after, limit)
        if len(entries) <= enough:
            self._kept = []
            return entries
        ends = accumulate(entry.size_bytes for entry in entries)
        kept = sum(1 for _ in takewhile(lambda size_bytes: size_bytes <= KEPT_BYTES, ends))
        self._kept, self._kept_after = entries[:kept], after
        return entries
