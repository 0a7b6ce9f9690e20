"""Collect batches of a consumer with functions: these are called first, in another process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from triggerkit.consumers.calls.functions import Outcome
from triggerkit.consumers.selection import Selection
from triggerkit.delivery.batch import Batch, collect
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.log.entry import Entry

#: Entries that the functions get at once.
CALLED_TOGETHER = 64


class Outcomes:
    """What a consumer's functions made of the entries that one lane has not sent yet."""

    def __init__(self, delivery: ConsumerDelivery) -> None:
        self._delivery = delivery
        self._made: dict[int, Outcome] = {}
        self._selection: Selection | None = None

    async def collect_onto(
        self,
        batch: Batch,
        entries: Sequence[Entry],
        limit: int,
        parked_keys: Collection[str],
        held_before: Collection[int],
        done: int,
    ) -> None:
        """Take from `entries` as `collect` does. What was made up to position `done` is
        forgotten."""
        for start in range(0, len(entries), CALLED_TOGETHER):
            some = entries[start : start + CALLED_TOGETHER]
            outcomes = await self._of(batch.selection, some, done)
            collect(
                batch.selection,
                some,
                limit,
                parked_keys,
                batch,
                held_before=held_before,
                outcomes=outcomes,
            )
            if batch.is_full:
                return

    async def _of(
        self, selection: Selection, entries: Sequence[Entry], done: int
    ) -> Mapping[int, Outcome]:
        if selection is not self._selection:
            self._selection, self._made = selection, {}
        made = {position: outcome for position, outcome in self._made.items() if position > done}
        new = [entry for entry in entries if entry.position not in made]
        if new:
            made |= dict.fromkeys((entry.position for entry in new), None)
            made |= await self._delivery.outcomes(selection, new)
        self._made = made
        return made
