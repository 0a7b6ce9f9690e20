"""Tell which transactions a snapshot sees, and which keys were touched by those it does not.

A change can be decoded before it is visible to a SELECT: the order of commits in the WAL is not
the order in which they become visible. A row read by a backfill is therefore stale exactly when a
transaction that touched it is not visible in the snapshot it was read by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from triggerkit.change import Key, Record, RowChange

#: The memory that the keys of a table may take. While a transaction is open for long, no snapshot
#: sees what was touched since it began.
MOST_BYTES = 16 * 1024 * 1024

#: The memory that a key takes beside its texts.
ENTRY_BYTES = 300


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`pg_current_snapshot()`: transactions below `xmin` are visible, from `xmax` on none are,
    between them those that are not in `in_progress`."""

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `xmin:xmax:xip,xip,…`.

        Source: PostgreSQL documentation, "pg_snapshot Components".
        """
        xmin, xmax, listed = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, listed.split(",")))))

    def sees(self, xid: int) -> bool:
        """Return whether the committed transaction `xid` (64 bits) is visible."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)


@dataclass(slots=True)
class _Followed:
    """The last change of a row since it is followed, and the columns that none of them brought.

    `is_row` is unset once it is not known to be the same row.
    """

    last: RowChange | None = None
    left_out: frozenset[str] = frozenset()
    is_row: bool = True

    def take(self, change: RowChange) -> None:
        names = frozenset(change.unchanged)
        self.left_out = names if self.last is None else self.left_out & names
        self.last = change
        if change.action != "update" or change.fault is not None:
            self.is_row = False


class TouchedKeys:
    """The last transaction that touched each key of a table, while the table is being read.

    The last one is enough: it had to wait for the row's lock until the one before it had become
    visible, so that it is never visible without it.
    """

    def __init__(self) -> None:
        self._keys: dict[Key, int] = {}
        self._size_bytes = 0
        self._whole_table = 0
        #: Which keys were touched by transactions up to this one is not known any more.
        self._forgotten_until = 0
        #: Whether a change may have left a value out.
        self.has_left_out = False
        self._followed: dict[Key, _Followed] = {}

    def record(self, xid: int, changes: Iterable[RowChange]) -> None:
        """Note the keys of `changes`, all of this table, by transaction `xid`."""
        for change in changes:
            if change.action == "truncate":
                self._whole_table = xid
                self._followed.clear()
                continue
            self.has_left_out = self.has_left_out or bool(change.unchanged)
            if (followed := self._followed.get(change.key)) is not None:
                followed.take(change)
            if change.key not in self._keys:
                self._size_bytes += _size_of(change.key)
            self._keys[change.key] = xid
            if self._size_bytes > MOST_BYTES:
                self._forgotten_until = max(self._forgotten_until, *self._keys.values())
                self._keys.clear()
                self._size_bytes = 0

    def follow(self, keys: Iterable[Key]) -> set[int]:
        """Take note of what happens to the rows `keys` from here on, and of no others.

        Returns the transactions that a snapshot has to see for it to be no older than that.
        """
        self._followed = {key: _Followed() for key in keys}
        return {self._keys[key] for key in self._followed if key in self._keys}

    def completed(self, key: Key, record: Record) -> Record | None:
        """Return a followed row as its last change left it, which lacks values that none of its
        changes brought: those are as in `record`, read since it is followed. None otherwise."""
        followed = self._followed.get(key)
        if followed is None or followed.last is None or not followed.is_row:
            return None
        lacking = followed.last.unchanged
        if (
            not lacking
            or not followed.left_out.issuperset(lacking)
            or not record.keys() >= {*lacking}
        ):
            return None
        return {**(followed.last.record or {}), **{name: record[name] for name in lacking}}

    def knows_all(self, snapshot: Snapshot) -> bool:
        """Return whether `is_stale` can tell of rows that `snapshot` saw.

        It cannot where too many keys were touched since: then the rows are to be read again, by a
        snapshot that sees all of those transactions.
        """
        return self._forgotten_until < snapshot.xmin

    def is_stale(self, key: Key, snapshot: Snapshot) -> bool:
        """Return whether the row `key`, as `snapshot` saw it, has a change that is in the log
        already."""
        if not snapshot.sees(self._whole_table):
            return True
        xid = self._keys.get(key)
        return xid is not None and not snapshot.sees(xid)

    def forget(self, snapshot: Snapshot) -> None:
        """Drop what every later snapshot sees: one is newer than `snapshot` if read after it."""
        self._keys = {key: xid for key, xid in self._keys.items() if xid >= snapshot.xmin}
        self._size_bytes = sum(map(_size_of, self._keys))


def _size_of(key: Key) -> int:
    return ENTRY_BYTES + sum(map(len, key))
