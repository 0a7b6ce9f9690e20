"""Collect batches; what a consumer's functions, or events, are made of them is made first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from triggerkit.consumers.calls.functions import Outcome
from triggerkit.consumers.cursors.cursor import Cursor
from triggerkit.consumers.render import IdempotencyKeys
from triggerkit.consumers.selection import Selection
from triggerkit.delivery.batch import Batch, collect, new_id
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.log.buffered import READ_LIMIT
from triggerkit.log.entry import Entry

#: Entries of which something is made at once.
CALLED_TOGETHER = 64


class Outcomes:
    """What a consumer's functions, if it has any, made of the entries that one lane has not sent
    yet."""

    def __init__(self, delivery: ConsumerDelivery) -> None:
        self._delivery = delivery
        self._made: dict[int, Outcome] = {}
        self._selection: Selection | None = None

    async def collect_onto(
        self,
        batch: Batch,
        entries: Sequence[Entry],
        limit: int,
        parked_keys: Collection[str] = (),
        *,
        done: int,
        held_before: Collection[int] = (),
        stops: bool = True,
    ) -> None:
        """Take from `entries` as `collect` does. What was made up to position `done` is
        forgotten."""
        selection = batch.selection
        take = partial(
            collect, selection, limit=limit, parked_keys=parked_keys, onto=batch,
            held_before=held_before, stops=stops,
        )  # fmt: skip
        if not (selection.leaves_calls or selection.sends_events):
            take(entries)
            return
        for start in range(0, len(entries), CALLED_TOGETHER):
            some = entries[start : start + CALLED_TOGETHER]
            take(some, outcomes=await self._of(selection, some, done))
            if batch.is_full:
                return

    async def collect_again(self, cursor: Cursor, last: int, held: frozenset[int]) -> Batch:
        """Return what is between the cursor and `last` as one batch, where that is possible."""
        selection = self._delivery.selection
        batch = Batch(selection, last=cursor.position)
        while batch.last < last and selection is self._delivery.selection:
            entries = await self._delivery.reader.read_stored(
                cursor.partition, batch.last, last, READ_LIMIT
            )
            if not entries:
                batch.last = last
                break
            limit = len(batch.entries) + len(entries)
            # What had a parked message then is in `held`; what has one now was sent before it.
            await self.collect_onto(
                batch, entries, limit, done=cursor.position, held_before=held, stops=False
            )
            if batch.last < entries[-1].position:
                # Another transform makes more of it than fits.
                break
        return batch

    def id_of(self, batch: Batch, body: bytes) -> str:
        """Return the id of a new push. An event that goes alone has one of its own, which a
        repetition of it has too, parked or not: the body does not tell them apart."""
        consumer = self._delivery.consumer
        is_alone = consumer.definition.batch_size == len(batch.entries) == 1
        if batch.selection.sends_events and is_alone:
            return new_id(body, IdempotencyKeys(consumer).of(batch.entries[0]))
        return new_id(body)

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
