"""What one consumer follows of a log: only changes that may be for it wake it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from triggerkit.log.entry import PARTITIONS, Entry, Subject

#: By partition and subject, the positions of the first and the last entry of an append.
Moves = dict[tuple[int, Subject], tuple[int, int]]


def grouped(entries: Iterable[Entry]) -> dict[tuple[int, Subject], list[Entry]]:
    """Return `entries` by partition and subject, each in their order."""
    groups: dict[tuple[int, Subject], list[Entry]] = {}
    for entry in entries:
        # As `Entry.subject`, without a call for every entry.
        place = (entry.partition, entry.consumer_id or (entry.schema, entry.table))
        some = groups.get(place)
        if some is None:
            groups[place] = [entry]
        else:
            some.append(entry)
    return groups


def note_moves(entries: Iterable[Entry], moves: Moves) -> Moves:
    """Return `moves`, with those of `entries`, which follow what is there."""
    for place, some in grouped(entries).items():
        first, _ = moves.get(place, (some[0].position, 0))
        moves[place] = (first, some[-1].position)
    return moves


class _Place:
    """How far the log is in one partition, for one who follows it."""

    __slots__ = ("first", "last", "moved")

    def __init__(self, head: int) -> None:
        #: The position up to which there may be something.
        self.last = head
        #: The first that may be something since the last wait began; None when nothing came.
        self.first: int | None = None
        self.moved = asyncio.Event()


class Followed:
    """The subjects that one consumer follows, and in each partition the last position of any.

    The last place is that of all partitions, whose number is -1. One at a time waits for a
    partition.
    """

    def __init__(self, subjects: frozenset[Subject] | None, head: int) -> None:
        """Follow all that comes when `subjects` is None. What there is up to position `head` is not
        known."""
        self.subjects = subjects
        self._places = [_Place(head) for _ in range(PARTITIONS + 1)]

    def moved(self, partition: int, first: int, last: int) -> None:
        """Note that the entries between these positions, both included, may be of its
        subjects."""
        for place in (self._places[partition], self._places[-1]):
            place.last = max(place.last, last)
            if place.first is None:
                place.first = first
            place.moved.set()

    def moved_everywhere(self, first: int, last: int) -> None:
        """Note that entries of any partition between these positions may be of its subjects."""
        for partition in range(PARTITIONS):
            self.moved(partition, first, last)

    def change(self, subjects: frozenset[Subject], head: int) -> None:
        """Follow `subjects` from now on; of what there is of them up to `head`, nothing is
        known."""
        self.subjects = subjects
        self.moved_everywhere(0, head)

    def has_nothing_after(self, partition: int, after: int) -> bool:
        """Return whether nothing that is followed is in `partition` after position `after`."""
        return self._places[partition].last <= after

    async def wait(self, partition: int, after: int) -> int:
        """Return once `partition` may hold something after position `after`: the position up to
        which there is nothing."""
        place = self._places[partition]
        if place.last > after:
            return after
        place.first = None
        while place.last <= after:
            place.moved.clear()
            await place.moved.wait()
        return after if place.first is None else max(after, place.first - 1)

    async def wait_for_a_move(self, partition: int) -> None:
        """Return when something comes, or when `look` says so."""
        moved = self._places[partition].moved
        moved.clear()
        await moved.wait()

    def look(self) -> None:
        """Let those who wait look again."""
        for place in self._places:
            place.moved.set()
