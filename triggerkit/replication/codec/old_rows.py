"""What the old row of an update or delete brings, as the replica identity has it.

Of a partitioned table that is published under its own name the stream announces the table's
identity, but writes by each partition's own: a NULL may then mean that the value was not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from triggerkit.replication.codec.messages import OldKind
from triggerkit.replication.codec.tuples import UNCHANGED_TOAST, Tuple


class OldRow(NamedTuple):
    """The values of an old row, `UNCHANGED_TOAST` for those that were not written.

    `is_whole` says that all were.
    """

    values: Tuple
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of a relation; `are_whole` if all of them are REPLICA IDENTITY FULL."""

    are_whole: bool


class OldRows:
    """Reads the old rows of one relation, whose columns at `key_at` are its key."""

    def __init__(
        self, is_identity: Sequence[bool], key_at: Sequence[int], partitions: Partitions | None
    ) -> None:
        self._is_identity = is_identity
        self._key_at = key_at
        self._partitions = partitions
        self._is_key = [at in key_at for at in range(len(is_identity))]

    def read(self, old: Tuple, kind: OldKind) -> OldRow | None:
        """Return what `old` says; None where it does not even have the key."""
        if self._partitions is None:
            if kind == "O":
                return OldRow(old, True)
            return OldRow(only(self._is_identity, old), False)
        if any(old[at] is None for at in self._key_at):
            return None
        others = [value for value, is_key in zip(old, self._is_key, strict=True) if not is_key]
        # Nothing but NULL beside the key is also what a partition writes that has the key alone,
        # and it may have been another identity then than it has now.
        is_written = any(value is not None for value in others)
        if not others or (self._partitions.are_whole and is_written):
            return OldRow(old, True)
        written = [value is not None for value in old]
        return OldRow(only(written, old), False)


def only(wanted: Iterable[bool], values: Tuple) -> Tuple:
    """Return `values` with `UNCHANGED_TOAST`, which no record shows, for those not wanted."""
    return [
        value if is_wanted else UNCHANGED_TOAST
        for is_wanted, value in zip(wanted, values, strict=True)
    ]
