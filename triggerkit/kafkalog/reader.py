"""Read a log on Kafka as any log is read: what came last from memory, what is older from Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from psycopg_pool import AsyncConnectionPool

from triggerkit.kafkalog.stored import Dropped, StoredLog
from triggerkit.log.entry import PARTITIONS, Entry, Subject
from triggerkit.log.followed import Followed
from triggerkit.log.reader import LogReader
from triggerkit.log.tail import TAIL_BYTES, Tail, few_of

#: Bytes of one partition that are kept for consumers that are near its end.
_PARTITION_BYTES: Final = TAIL_BYTES // PARTITIONS


class KafkaLogReader(LogReader):
    """Reads the partitions that a process has. Each has an end of its own: up to there all that is
    in it is known."""

    def __init__(
        self,
        pool: AsyncConnectionPool,
        database_id: int,
        heads: Mapping[int, int],
        stored: StoredLog,
        dropped: Callable[[int], Awaitable[None]],
    ) -> None:
        """`heads` are the last positions of the partitions: what is up to there is read from
        Kafka. `dropped` is told of a partition of which something is dropped that a lane had not
        got."""
        super().__init__(pool, database_id, max(heads.values(), default=0))
        self._stored = stored
        self._dropped = dropped
        self._tails = [Tail(_PARTITION_BYTES) for _ in range(PARTITIONS)]
        self._heads = [heads.get(partition, 0) for partition in range(PARTITIONS)]

    def came(self, partition: int, entries: list[Entry]) -> None:
        """Note what came next in a partition."""
        before, tail = self._heads[partition], self._tails[partition]
        self._heads[partition] = entries[-1].position
        self.head = max(self.head, entries[-1].position)
        if tail.first is None:
            tail.first = before + 1
        self._tell(tail.add(entries))

    def follow(self, subjects: frozenset[Subject]) -> Followed:
        """Begin to note what comes of `subjects`, until `unfollow`."""
        followed = Followed(subjects, 0)
        self._note_ends(followed)
        self._enter(followed)
        return followed

    def refollow(self, followed: Followed, subjects: frozenset[Subject]) -> None:
        """Have `followed` be of other subjects from now on."""
        if followed.subjects != subjects:
            self.unfollow(followed)
            followed.subjects = subjects
            self._note_ends(followed)
            self._enter(followed)

    def head_of(self, partition: int) -> int:
        """Return the position of the last entry of a partition that came."""
        return self._heads[partition]

    def holds(
        self, partition: int, after: int, count: int, followed: Followed | None = None
    ) -> bool:
        """Return whether `count` entries of `partition` after position `after` are in memory."""
        subjects = (followed or self._everything).subjects
        return self._tails[partition].holds(partition, after, count, subjects)

    async def read(
        self, partition: int, after: int, limit: int, followed: Followed | None = None
    ) -> list[Entry]:
        """Return at most `limit` entries of `partition` after position `after`, in order."""
        subjects = (followed or self._everything).subjects
        tail, head = self._tails[partition], self._heads[partition]
        if tail.keeps_all(after):
            return tail.read(partition, after, limit, subjects)
        few = None if subjects is None else few_of(subjects)
        while after < head:
            try:
                found, after = await self._stored.read(partition, after, head, limit, few)
            except Dropped as gone:
                await self._dropped(partition)
                after = gone.first - 1
                continue
            if found:
                return found
        return []

    async def read_stored(
        self,
        partition: int,
        after: int,
        until: int,
        limit: int,
        subjects: frozenset[Subject] | None = None,
    ) -> list[Entry]:
        """Return entries from Kafka: `after` is exclusive, `until` inclusive."""
        found: Sequence[Entry] = ()
        while not found and after < until:
            try:
                found, after = await self._stored.read(partition, after, until, limit, subjects)
            except Dropped as gone:
                after = gone.first - 1
        return list(found)

    def _note_ends(self, followed: Followed) -> None:
        """Note that anything up to the end of each partition may be of its subjects."""
        for partition, head in enumerate(self._heads):
            followed.moved(partition, 0, head)
