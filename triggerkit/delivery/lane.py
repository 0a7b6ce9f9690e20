"""A lane: one consumer's messages of one partition, one batch in flight, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursor import Cursor, CursorStore, ParkedMessage, Settled
from triggerkit.consumers.render import Renderer
from triggerkit.delivery import parking
from triggerkit.delivery.backoff import backoff_s
from triggerkit.delivery.batch import Batch, collect
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.isolation import Health, Suspicion
from triggerkit.delivery.push import Answer, Push, Pusher
from triggerkit.delivery.turns import Turns
from triggerkit.failpoints import reach
from triggerkit.log.entry import Entry
from triggerkit.log.reader import LogReader

logger = logging.getLogger(__name__)

#: Entries looked at in one read when a filter leaves few of them.
READ_LIMIT = 512

#: What a consumer's endpoint knows a push by.
CredentialsFor = Callable[[Consumer], Credentials]


class Lane:
    """Delivers until canceled. A restart sends the batch of unknown outcome first, as it was."""

    def __init__(
        self,
        consumer: Consumer,
        cursor: Cursor,
        reader: LogReader,
        store: CursorStore,
        pusher: Pusher,
        credentials_for: CredentialsFor,
        parked_rows: set[str],
        health: Health,
        turns: Turns,
    ) -> None:
        self.consumer = consumer
        self.cursor = cursor
        self._reader = reader
        self._store = store
        self._pusher = pusher
        self._credentials_for = credentials_for
        self._renderer = Renderer(consumer)
        self._parked_rows = parked_rows
        self._suspicion = Suspicion(health)
        self._turns = turns
        self._has_turn = False
        self._limit = consumer.definition.batch_size

    def use(self, consumer: Consumer) -> None:
        """Go on with a changed definition from the next batch on."""
        self.consumer = consumer
        self._renderer = Renderer(consumer)
        # What was halved stays so: it grows back once the reason is found.
        self._limit = min(self._limit, consumer.definition.batch_size)

    async def run(self) -> None:
        """Deliver for ever; returns only when the endpoint says it is gone (410)."""
        batch = await self._unsettled()
        try:
            while await self._deliver(batch or await self._next()):
                batch = None
        finally:
            self._give_turn_back()

    async def _next(self) -> Batch:
        while True:
            await self._reader.wait(self.cursor.partition, self.cursor.position)
            await self._take_turn()
            limit = max(self._limit, READ_LIMIT)
            head = self._reader.head
            entries = await self._reader.read(self.cursor.partition, self.cursor.position, limit)
            batch = self._collect(entries) if entries else None
            if batch is not None and (batch.entries or batch.waiting):
                return batch
            self.cursor.position = head if batch is None else batch.last
            self._give_turn_back()

    async def _take_turn(self) -> None:
        cursor = self.cursor
        is_full = self._reader.holds(cursor.partition, cursor.position, self._limit)
        await self._turns.take(is_full=is_full)
        self._has_turn = True

    def _give_turn_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.give_back()

    async def _unsettled(self) -> Batch | None:
        cursor = self.cursor
        if cursor.batch_id is None or cursor.batch_last is None:
            return None
        entries = await self._reader.read_stored(
            cursor.partition, cursor.position, cursor.batch_last, limit=100_000
        )
        if not entries:
            return None
        self._limit = len(entries)
        batch = self._collect(entries)
        self._limit = self.consumer.definition.batch_size
        return replace(batch, id=cursor.batch_id)

    def _collect(self, entries: list[Entry]) -> Batch:
        return collect(self.consumer, self._renderer, entries, self._limit, self._parked_rows)

    async def _deliver(self, batch: Batch) -> bool:
        """Send `batch` until it is taken or set aside; False when the endpoint is gone."""
        if not batch.entries:
            self._give_turn_back()
            await self._settle(batch, datetime.now(UTC), Answer("delivered", None), batch.last)
            return True
        while True:
            sent_at, answer = await self._attempt(batch)
            if answer.verdict == "delivered":
                reach("delivered-before-cursor")
                self._suspicion.delivered(batch.last)
                await self._settle(batch, sent_at, answer, batch.last)
                if not self._suspicion.is_within(batch.last):
                    self._limit = min(self._limit * 2, self.consumer.definition.batch_size)
                return True
            if self._is_blamed(batch, answer):
                await self._isolate(batch, sent_at, answer)
                return True
            await self._settle(batch, sent_at, answer, None)
            await self._store.save_error(self.consumer.id, answer.error)
            if answer.verdict == "gone":
                logger.error("%s: the endpoint is gone (410); disabled", self.consumer.name)
                await self._store.disable(self.consumer.id)
                return False
            await self._back_off(answer)

    def _is_blamed(self, batch: Batch, answer: Answer) -> bool:
        if answer.verdict == "content_refused":
            return True
        self._suspicion.failed(suspect=answer.is_suspect)
        return self._suspicion.is_proven(len(batch.entries))

    async def _back_off(self, answer: Answer) -> None:
        wait_s = backoff_s(self.cursor.attempt, answer.retry_after_s)
        name, next_attempt = self.consumer.name, self.cursor.attempt + 1
        logger.warning(
            "delivery of %s: %s; attempt %d in %.1f s", name, answer.error, next_attempt, wait_s
        )
        await asyncio.sleep(wait_s)

    async def _attempt(self, batch: Batch) -> tuple[datetime, Answer]:
        definition, target = self.consumer.definition, self.consumer.target
        assert target is not None
        self.cursor.batch_id = batch.id
        self.cursor.batch_last = batch.last
        self.cursor.attempt += 1
        await self._store.begin(self.cursor)
        push = Push(
            url=target.url,
            body=batch.body(single=definition.batch_size == 1),
            batch_id=batch.id,
            attempt=self.cursor.attempt,
            timeout_s=definition.timeout_s,
            credentials=self._credentials_for(self.consumer),
        )
        sent_at = datetime.now(UTC)
        self._suspicion.sending()
        reach("post-before")
        answer = await self._pusher.send(push)
        self._give_turn_back()
        reach("post-after")
        return sent_at, answer

    async def _isolate(self, batch: Batch, sent_at: datetime, answer: Answer) -> None:
        """Find what the endpoint fails at by halving; what fails alone is parked."""
        if len(batch.entries) > 1:
            # The first half goes again as a batch of its own; the limit grows back behind the rest.
            self._limit = (len(batch.entries) + 1) // 2
            self._suspicion.halved(batch.last)
            await self._settle(batch, sent_at, answer, self.cursor.position)
            return
        reason = answer.error or "refused"
        if answer.is_suspect:
            reason += f" in {self.cursor.attempt} attempts, while other messages were delivered"
        refused = parking.alone(batch, reason)
        logger.warning("parked a message of %s: %s", refused.key, reason)
        self._suspicion.parked()
        await self._settle(batch, sent_at, answer, batch.last, [refused])

    async def _settle(
        self,
        batch: Batch,
        sent_at: datetime,
        answer: Answer,
        move_to: int | None,
        refused: Sequence[ParkedMessage] = (),
    ) -> None:
        """Note the attempt; with `move_to` the batch is over and the cursor goes there."""
        parked = [*refused, *parking.named(self.consumer, batch, answer)]
        if move_to == batch.last and batch.waiting:
            parked += parking.behind(self._renderer, batch)
        settled = Settled(
            first=batch.first,
            last=batch.last,
            batch_id=batch.id,
            attempt=self.cursor.attempt,
            messages=len(batch.entries),
            sent_at=sent_at,
            status=answer.status,
            error=answer.error,
            move_to=move_to,
        )
        await self._store.settle(self.cursor, settled, parked)
        self._parked_rows.update(message.key for message in parked)
        if move_to is None:
            return
        if self.cursor.attempt > 1:
            await self._store.save_error(self.consumer.id, None)
        self.cursor.position = move_to
        self.cursor.batch_id = self.cursor.batch_last = None
        self.cursor.attempt = 0
