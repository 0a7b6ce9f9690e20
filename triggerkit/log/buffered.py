"""Read the log for one cursor: what was read and not used is kept for the next read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, takewhile
from operator import attrgetter

from triggerkit.log.entry import Entry
from triggerkit.log.followed import Followed
from triggerkit.log.reader import LogReader

#: Entries looked at in one read when a filter leaves few of them.
READ_LIMIT = 512

#: Bytes of entries that are kept.
KEPT_BYTES = 256 * 1024

_position = attrgetter("position")


class BufferedReader:
    """Reads what is followed of one partition, or of all, from position to position onward."""

    def __init__(self, reader: LogReader, partition: int, followed: Followed) -> None:
        self._reader = reader
        self._partition = partition
        self._followed = followed
        self._subjects = followed.subjects
        # All the entries there are from a position on, up to the last one here.
        self._kept: list[Entry] = []
        self._kept_after = 0

    @property
    def head(self) -> int:
        """Return the position up to which all that there is can be read."""
        return self._reader.head_of(self._partition)

    def nothing_up_to(self, after: int) -> int:
        """Return the position up to which nothing is known to be, after position `after`."""
        if self._followed.has_nothing_after(self._partition, after):
            return max(after, self.head)
        return after

    async def wait(self, after: int) -> int:
        """Return once there may be something after position `after`: the position up to which
        there is nothing."""
        return await self._followed.wait(self._partition, after)

    async def fill(self, after: int, count: int) -> bool:
        """Wait for `count` entries after position `after` as `LogReader.fill` does."""
        return await self._reader.fill(self._partition, after, count, self._followed)

    async def read(self, after: int, enough: int) -> Sequence[Entry]:
        """Return entries after position `after`, in order: at least `enough`, if there are."""
        if self._subjects is not self._followed.subjects:
            # Of others that are followed now nothing was kept.
            self._subjects, self._kept = self._followed.subjects, []
        if self._kept_after <= after:
            left = self._kept[bisect_right(self._kept, after, key=_position) :]
            if len(left) >= enough:
                self._kept, self._kept_after = left, after
                return left
        # Where more than one read of these is enough, there would be next to nothing to keep.
        limit = enough if 2 * enough > READ_LIMIT else READ_LIMIT
        entries = await self.read_on(after, limit)
        if len(entries) <= enough:
            self._kept = []
            return entries
        ends = accumulate(entry.size_bytes for entry in entries)
        kept = sum(1 for _ in takewhile(lambda size_bytes: size_bytes <= KEPT_BYTES, ends))
        self._kept, self._kept_after = entries[:kept], after
        return entries

    async def read_on(self, after: int, limit: int = READ_LIMIT) -> list[Entry]:
        """Return at most `limit` entries after position `after`, in order; none are kept."""
        return await self._reader.read(self._partition, after, limit, self._followed)
