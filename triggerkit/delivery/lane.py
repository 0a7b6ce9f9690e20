"""A lane: one consumer's messages of one partition (or of all), one batch in flight, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor
from triggerkit.consumers.parked.message import ParkedMessage
from triggerkit.delivery import parking
from triggerkit.delivery.batch import Batch, is_id_of, new_id
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.delivery.direct.way import NotMade
from triggerkit.delivery.isolation import Suspicion
from triggerkit.delivery.outcomes import Outcomes
from triggerkit.delivery.push import GONE, Answer, of_batch
from triggerkit.delivery.tunnel.way import first_of
from triggerkit.failpoints import reach
from triggerkit.log.buffered import BufferedReader
from triggerkit.log.entry import Entry

logger = logging.getLogger(__name__)

#: Positions that a lane passes, all unwanted, before it stores where it is: backfills wait for it.
PASSED_UNSTORED = 20_000


class Lane:
    """Delivers until canceled. A restart sends the batch of unknown outcome first, as it was."""

    def __init__(self, delivery: ConsumerDelivery, cursor: Cursor) -> None:
        self.cursor = cursor
        #: Set once the batch of unknown outcome, if any, is known.
        self.ready = asyncio.Event()
        #: Whether an attempt is under way whose outcome is not recorded yet.
        self.is_sending = False
        self._delivery = delivery
        self._store = delivery.store
        self._batch: Batch | None = None
        self._suspicion = Suspicion(delivery.health)
        self._has_turn = False
        # Of the attempt that failed last.
        self._last_status: int | None = None
        self._changes = delivery.changes()
        self._outcomes = Outcomes(delivery)
        self._log = BufferedReader(delivery.reader, cursor.partition, delivery.followed)
        # What was halved stays so: it grows back once the reason is found.
        self._reduced: int | None = None
        delivery.settles.append(self.settle)

    @property
    def consumer(self) -> Consumer:
        """The consumer, as it is now."""
        return self._delivery.consumer

    def settle(self) -> Cursor:
        """Move the cursor past what the consumer does not follow, since that wakes no lane."""
        if (reached := self._log.nothing_up_to(self.cursor.position)) > self.cursor.position:
            self.cursor = self.cursor.passed(reached)
        return self.cursor

    @property
    def _limit(self) -> int:
        size = self.consumer.definition.batch_size
        return size if self._reduced is None else min(self._reduced, size)

    def holds(self, key: str) -> bool:
        """Return whether a message of `key` is in the batch under way."""
        entries = [] if self._batch is None else self._batch.entries
        return any(self.consumer.key_of(entry) == key for entry in entries)

    async def run(self) -> None:
        """Deliver until canceled or drained, or until the endpoint says it is gone (410).

        Raises:
            CursorMoved: a command moved the cursor, or removed it.
        """
        batch = await self._undecided_batch()
        self.ready.set()
        try:
            while await self._deliver(batch or await self._next()):
                batch = await self._undecided_batch()
        finally:
            self._give_turn_back()

    async def _next(self) -> Batch:
        while True:
            self._pass(max(await self._log.wait(self.cursor.position), self.cursor.position))
            await self._take_turn()
            head = self._log.head
            entries = await self._log.read(self.cursor.position, self._limit)
            batch = self._batch = await self._collect(entries) if entries else None
            if batch is not None and (batch.entries or batch.held):
                await self._fill(batch)
                return batch
            self._pass(head if batch is None else batch.last)
            self._give_turn_back()
            if batch is not None and batch.barrier is not None:
                truncate = await self._stand_at(batch.barrier)
                if truncate is not None:
                    return truncate
            elif self.cursor.position - self.cursor.stored_position > PASSED_UNSTORED:
                self.cursor = await self._store.rest(self.consumer, self.cursor)

    def _pass(self, position: int) -> None:
        self.cursor = self.cursor.passed(position)
        self._delivery.barrier.tell()

    async def _stand_at(self, barrier: Entry) -> Batch | None:
        """Wait at a truncate, until all before it is done, and return it; or at its echo, until it
        is done itself."""
        if self.cursor.position > self.cursor.stored_position:
            # Stored, so that an edit does not make anything of it wanted after the truncate.
            self.cursor = await self._store.rest(self.consumer, self.cursor)
        if barrier.is_echo:
            await self._delivery.barrier.passed(barrier)
            self._pass(barrier.position)
            return None
        await self._delivery.clear_for(barrier)
        batch, done = Batch(self._delivery.selection), self.cursor.position
        self._batch = batch
        await self._outcomes.collect_onto(batch, [barrier], 1, done=done, stops=False)
        if batch.entries or batch.held:
            return batch
        self._pass(barrier.position)
        return None

    async def _fill(self, batch: Batch) -> None:
        """Wait for more messages, as long as the definition says."""
        wait_s = self.consumer.definition.batch_timeout_s
        if not wait_s or not batch.entries:
            return
        selection = self._delivery.selection
        deadline = asyncio.get_running_loop().time() + wait_s
        while not batch.is_full and selection is self._delivery.selection:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.last = await self._log.wait(batch.last)
            except TimeoutError:
                return
            head = self._log.head
            if entries := await self._log.read_on(batch.last):
                await self._collect(entries, batch)
            else:
                batch.last = head

    async def _take_turn(self) -> None:
        if self.consumer.definition.batch_timeout_s:
            return
        is_full = self._log.fill(self.cursor.position, self._limit)
        await self._delivery.turns.take(is_full=await is_full)
        self._has_turn = True

    def _give_turn_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._delivery.turns.give_back()

    async def _undecided_batch(self) -> Batch | None:
        """Return the batch that was sent, or was to be sent, when the cursor was last stored.

        None when what the consumer gets was edited since, or its functions were, so that it would
        be another: it is over then, and what it had is collected anew, by another id.
        """
        self._let_go()
        cursor = self.cursor
        if cursor.batch_id is None or cursor.batch_last is None:
            return None
        held = frozenset(cursor.settled)
        batch = await self._outcomes.collect_again(cursor, cursor.batch_last, held)
        while batch.selection is not self._delivery.selection:
            batch = await self._outcomes.collect_again(cursor, cursor.batch_last, held)
        batch.id = cursor.batch_id
        if self._fits(batch) and is_id_of(batch.id, self._body(batch)):
            self._batch = batch
            return batch
        self._suspicion.halved(cursor.batch_last)
        self.cursor = await self._store.rest(self.consumer, cursor)
        return None

    def _let_go(self) -> None:
        self._batch = None
        self._delivery.barrier.tell()
        if self._delivery.is_awaited:
            self._delivery.retry.set()

    def _fits(self, batch: Batch) -> bool:
        """Return whether `batch` is as the consumer, which may have been edited, has it now."""
        size = self.consumer.definition.batch_size
        return batch.selection is self._delivery.selection and 0 < len(batch.entries) <= size

    def _body(self, batch: Batch) -> bytes:
        return batch.body(single=self.consumer.definition.sends_alone)

    async def _collect(self, entries: Sequence[Entry], onto: Batch | None = None) -> Batch:
        batch = Batch(self._delivery.selection) if onto is None else onto
        done, parked_keys = self.cursor.position, self._delivery.parked_keys
        await self._outcomes.collect_onto(batch, entries, self._limit, parked_keys, done=done)
        return batch

    async def _deliver(self, batch: Batch) -> bool:
        """Send `batch` until it is taken, set aside or edited; False when nothing more is sent."""
        if not batch.entries:
            self._give_turn_back()
            await self._record(batch, datetime.now(UTC), Answer("delivered", None), batch.last)
            return True
        while (attempt := await self._attempt(batch)) is not None:
            sent_at, answer = attempt
            if answer.verdict == "delivered":
                reach("delivered-before-cursor")
                answer = await self._done(batch, sent_at, answer)
            self._give_turn_back()
            if answer.verdict == "delivered":
                self._suspicion.delivered(batch.last)
                if self._reduced is not None and not self._suspicion.is_within(batch.last):
                    self._grow()
                return not self._delivery.is_draining
            if self._is_blamed(batch, answer):
                await self._isolate(batch, sent_at, answer)
                return not self._delivery.is_draining
            await self._record(batch, sent_at, answer, None)
            await self._store.save_error(self.consumer.id, answer.error)
            if answer.verdict == "gone":
                logger.error(GONE, self.consumer.name)
                await self._store.disable(self.consumer.id)
                return False
            await self._back_off(answer)
        return not self._delivery.is_draining

    async def _done(self, batch: Batch, sent_at: datetime, answer: Answer) -> Answer:
        """Move the cursor past `batch`; directly, its runs may turn out not to be made."""
        try:
            await self._record(batch, sent_at, answer, batch.last)
            return answer
        except NotMade as not_made:
            await self._begin(batch)
            return not_made.answer

    def _grow(self) -> None:
        size = self._limit * 2
        self._reduced = None if size >= self.consumer.definition.batch_size else size

    def _is_blamed(self, batch: Batch, answer: Answer) -> bool:
        if answer.verdict == "content_refused" or (answer.is_unreadable and len(batch.entries) > 1):
            return True
        self._suspicion.failed(suspect=answer.is_suspect)
        return self._suspicion.is_proven(len(batch.entries))

    async def _back_off(self, answer: Answer) -> None:
        is_repeated = self.cursor.attempt > 1 and answer.status == self._last_status
        self._last_status = answer.status
        wait_s = self._delivery.wait_s(self.cursor.attempt, answer, is_repeated=is_repeated)
        told = (self.consumer.name, answer.error, self.cursor.attempt + 1, wait_s)
        logger.warning("delivery of %s: %s; attempt %d in %.1f s", *told)
        await first_of(self._changes, wait_s)

    async def _attempt(self, batch: Batch) -> tuple[datetime, Answer] | None:
        """Send `batch`; None when it has become another, and nothing was sent."""
        is_open = await self._delivery.until_open(self._give_turn_back)
        async with self._delivery.slots:
            if not (is_open and self._fits(batch)):
                self._give_turn_back()
                return None
            self.is_sending = True
            body = self._body(batch)
            batch.id = batch.id or self._outcomes.id_of(batch, body)
            # What is made with the cursor's move has no unknown outcome: only a failure is noted.
            if not self._delivery.has_own_way or self.cursor.batch_id is not None:
                await self._begin(batch)
            sent_at, self._changes = datetime.now(UTC), self._delivery.changes()
            self._suspicion.sending()
            reach("post-before")
            answer = await self._delivery.push(batch, body, self.cursor.attempt)
            if answer.failed:
                answer = of_batch(answer, parking.keys_of(self.consumer, batch))
                definition, sent = self.consumer.definition, self.cursor.attempt
                answer = parking.in_its_place(definition, batch, answer, sent)
            if answer.verdict != "delivered" and self.cursor.batch_id is None:
                await self._begin(batch)
        if not self._delivery.has_own_way:  # else it is stored by the record
            self._give_turn_back()
        reach("post-after")
        return sent_at, answer

    async def _begin(self, batch: Batch) -> None:
        held, last = [item.entry.position for item in batch.held], batch.last
        self.cursor = await self._store.begin(
            self.consumer, self.cursor, batch_id=batch.id, batch_last=last, settled=held
        )

    async def _isolate(self, batch: Batch, sent_at: datetime, answer: Answer) -> None:
        """Find what the endpoint fails at by halving; what fails alone is parked."""
        if len(batch.entries) > 1:
            # The first half goes again as a batch of its own; the limit grows back behind the rest.
            self._reduced = (len(batch.entries) + 1) // 2
            self._suspicion.halved(batch.last)
            await self._record(batch, sent_at, answer, self.cursor.position)
            return
        reason = answer.error or "refused"
        if answer.is_suspect:
            reason += f" in {self.cursor.attempt} attempts, while other messages were delivered"
        refused = parking.alone(self.consumer, self.cursor.partition, batch, answer, reason)
        logger.warning("parked a message of %s: %s", refused.key, reason)
        self._suspicion.parked()
        await self._record(batch, sent_at, answer, batch.last, [refused])

    async def _record(
        self,
        batch: Batch,
        sent_at: datetime,
        answer: Answer,
        move_to: int | None,
        refused: Sequence[ParkedMessage] = (),
    ) -> None:
        """Note the attempt; with `move_to` the batch is over and the cursor goes there."""
        outcome = AttemptOutcome(
            first=batch.first,
            last=batch.last,
            batch_id=batch.id or new_id(),
            attempt=self.cursor.attempt or min(1, len(batch.entries)),
            messages=len(batch.entries),
            sent_at=sent_at,
            status=answer.status,
            error=answer.error,
            move_to=move_to,
        )
        parked = []
        if move_to == batch.last:
            parked = parking.of_batch(self.consumer, self.cursor.partition, batch, answer, refused)
        if parked:
            await self._park(outcome, parked, answer)
        else:
            self.cursor = await self._delivery.record(self.cursor, outcome, answer)
        self.is_sending = False
        if move_to is None:
            return
        self._let_go()
        if outcome.attempt > 1:
            await self._store.save_error(self.consumer.id, None)

    async def _park(
        self, outcome: AttemptOutcome, parked: list[ParkedMessage], answer: Answer
    ) -> None:
        async with self._delivery.parking:
            self.cursor = await self._delivery.record(self.cursor, outcome, answer, parked)
            self._delivery.parked_keys.update(m.key for m in parked if m.state != "dead")
        self._delivery.retry.set()
