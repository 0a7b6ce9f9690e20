"""The newest entries of a log in memory, by partition, and by what those who follow it know them
by."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter

from triggerkit.log.entry import ALL_PARTITIONS, PARTITIONS, Entry, Subject
from triggerkit.log.followed import Moves, grouped

#: Bytes kept for consumers that are near the head of the log.
TAIL_BYTES = 64 * 1024 * 1024

#: Subjects that are read one by one. Who follows more looks at all entries of a partition, most of
#: which it is going to want.
FEW_SUBJECTS = 8

_position = attrgetter("position")


def few_of(subjects: frozenset[Subject] | None) -> frozenset[Subject] | None:
    """Return `subjects` if others are worth being left out, None if all are to be looked at."""
    return subjects if subjects is not None and len(subjects) <= FEW_SUBJECTS else None


def in_order(lists: list[list[Entry]]) -> list[Entry]:
    """Return the entries of all `lists`, each of which is in order."""
    if len(lists) == 1:
        return lists[0]
    # Sorting finds those that are in order already.
    return sorted(chain.from_iterable(lists), key=_position)


class Tail:
    """Keeps all entries from position `first` on; none while that is None."""

    def __init__(self, most_bytes: int = TAIL_BYTES) -> None:
        self._most_bytes = most_bytes
        self.first: int | None = None
        self._size_bytes = 0
        self._all: list[list[Entry]] = [[] for _ in range(PARTITIONS)]
        self._by_subject: list[dict[Subject, list[Entry]]] = [{} for _ in range(PARTITIONS)]

    def keeps_all(self, after: int) -> bool:
        """Return whether all entries after position `after` are here."""
        return self.first is not None and self.first <= after + 1

    def add(self, entries: list[Entry]) -> Moves:
        """Keep `entries`, which follow those that are kept; return where they are."""
        if not entries:
            return {}
        if self.first is None:
            self.first = entries[0].position
        moves: Moves = {}
        by_partition: defaultdict[int, list[list[Entry]]] = defaultdict(list)
        for (partition, subject), some in grouped(entries).items():
            moves[partition, subject] = (some[0].position, some[-1].position)
            by_partition[partition].append(some)
            self._by_subject[partition].setdefault(subject, []).extend(some)
        for partition, lists in by_partition.items():
            self._all[partition] += in_order(lists)
        self._size_bytes += sum(entry.size_bytes for entry in entries)
        if self._size_bytes > self._most_bytes:
            # Half at once, so that it costs nothing per entry.
            self.forget_until((self.first + entries[-1].position) // 2)
        return moves

    def forget_until(self, last: int) -> None:
        """Keep only what is after position `last`."""
        for partition, entries in enumerate(self._all):
            del entries[: bisect_right(entries, last, key=_position)]
            of_subject = self._by_subject[partition]
            for some in of_subject.values():
                del some[: bisect_right(some, last, key=_position)]
            self._by_subject[partition] = {key: some for key, some in of_subject.items() if some}
        kept = [entry for entries in self._all for entry in entries]
        self.first = last + 1 if kept else None
        self._size_bytes = sum(entry.size_bytes for entry in kept)

    def read(
        self, partition: int, after: int, limit: int, subjects: frozenset[Subject] | None = None
    ) -> list[Entry]:
        """Return at most `limit` entries of `partition`, or of all, after position `after`, in
        order: those of `subjects` at least."""
        found = [
            entries[start : start + limit]
            for entries in self._lists(partition, subjects)
            if (start := bisect_right(entries, after, key=_position)) < len(entries)
        ]
        return in_order(found)[:limit]

    def holds(
        self, partition: int, after: int, count: int, subjects: frozenset[Subject] | None = None
    ) -> bool:
        """Return whether `count` entries that `read` may return are here."""
        for entries in self._lists(partition, subjects):
            if len(entries) >= count and entries[-count].position > after:
                return True
            count -= len(entries) - bisect_right(entries, after, key=_position)
            if count <= 0:
                return True
        return False

    def _lists(self, partition: int, subjects: frozenset[Subject] | None) -> Iterator[list[Entry]]:
        partitions = range(PARTITIONS) if partition == ALL_PARTITIONS else (partition,)
        few = few_of(subjects)
        for number in partitions:
            if few is None:
                yield self._all[number]
                continue
            of_subject = self._by_subject[number]
            for subject in few:
                if subject in of_subject:
                    yield of_subject[subject]
