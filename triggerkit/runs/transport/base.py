"""Carry the ids of ready runs to workers: transport only, Postgres remembers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from triggerkit.runs.run import ReadyRun

logger = logging.getLogger(__name__)


class TransportAway(Exception):
    """The transport does not answer. Its runs are safe, and start when it is back."""


class Taken(NamedTuple):
    """Ids of one task, first the one to start first. `at_once`: there may be more at hand."""

    task: str
    ids: list[str]
    at_once: bool


class Room:
    """How many runs a fetcher takes yet: as many as its free slots get done in a moment."""

    def __init__(self, slots: int, most: int, per_slot: Callable[[str], int]) -> None:
        """`per_slot` is how many runs of a task one slot is given; `most` bounds them all."""
        self._per_slot = per_slot
        self.slots = float(slots)
        self.most = most

    def each(self, task: str) -> int:
        """Return how many runs of `task` a slot is given."""
        return self._per_slot(task)

    def of(self, task: str) -> int:
        """Return how many runs of `task` there is room for."""
        return max(0, min(math.ceil(self.slots * self.each(task)), self.most))

    def took(self, task: str, count: int) -> None:
        """Note that `count` runs of `task` were taken."""
        self.slots -= count / self.each(task)
        self.most -= count

    @property
    def is_left(self) -> bool:
        """Return whether there is room for any."""
        # What is less than a thousandth of a slot is left by rounding.
        return self.slots > 1e-3 and self.most > 0


class Source(Protocol):
    """The ids that one fetcher of a worker takes; for one thread, but for `wake`."""

    def take(self, timeout_s: float) -> Taken | None:
        """Wait for a ready run of any of the tasks; None when none came, or `wake` was called.

        Raises:
            TransportAway: it does not answer.
        """

    def more(self, count: int) -> list[str]:
        """At most `count` more ids of the task of the last `take`, without waiting.

        Raises:
            TransportAway: it does not answer.
        """

    def others(self, room: Room) -> list[Taken]:
        """Take ids of other tasks than that of the last `take`, without waiting, as long as there
        is `room`: it need not look at all tasks.

        Raises:
            TransportAway: it does not answer.
        """

    def acknowledge(self) -> None:
        """Let the transport forget what was taken: it is claimed in Postgres."""

    def wake(self) -> None:
        """End a `take` that waits, from any thread."""

    def close(self) -> None:
        """Take nothing more."""


class Transport(Protocol):
    """Carries ids. It may lose some and give some twice: the keeper pushes again what is missing,
    and a run that is claimed already is not claimed again."""

    def push(self, runs: Iterable[ReadyRun]) -> bool:
        """Push `runs`; False when the transport is away, of which it warns.

        A push that failed is not lost: the keeper pushes what the transport lacks.
        """

    def first_ranks(self, tasks: Sequence[str]) -> Mapping[str, float]:
        """Return, for each task, the rank of its run that would be taken next; infinite when there
        is none.

        Whatever is ready and stands before it is not in the transport. One that cannot tell answers
        negative infinity while it has anything: then nothing counts as missing.

        Raises:
            TransportAway: it does not answer.
        """

    def source(self, tasks: Sequence[str]) -> Source:
        """Return a source of ready runs of `tasks`."""

    def close(self) -> None:
        """Close the connections."""


class AsyncTransport(Protocol):
    """The pushing side of a `Transport`, for an event loop. `name` is what is behind it."""

    name: str

    async def push(self, runs: Iterable[ReadyRun]) -> bool:
        """See `Transport.push`."""

    async def check(self) -> None:
        """Ask whether it is there.

        Raises:
            TransportAway: it does not answer.
        """

    async def close(self) -> None:
        """Close the connections."""


def warn_away(name: str, error: Exception) -> None:
    """Tell that the transport `name` is away."""
    logger.warning(
        "%s does not answer (%s); the runs are safe, and start when it is back", name, error
    )
