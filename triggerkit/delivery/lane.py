"""A lane: one consumer's messages of one partition, one batch in flight, in order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursor import Cursor, CursorStore, ParkedMessage, Settled
from triggerkit.consumers.render import Renderer, idempotency_key
from triggerkit.delivery.batch import Batch, collect, row_of
from triggerkit.delivery.push import Answer, Push, Pusher
from triggerkit.failpoints import reach
from triggerkit.log.entry import Entry
from triggerkit.log.reader import LogReader

logger = logging.getLogger(__name__)

#: Entries looked at in one read when a filter leaves few of them.
READ_LIMIT = 512

#: Back-off of a failing endpoint: the first wait and the longest, in seconds.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 600.0


#: The headers that authorize a push to a consumer's endpoint.
HeadersFor = Callable[[Consumer], Mapping[str, str]]


def backoff_s(attempt: int, asked_s: float | None = None) -> float:
    """Seconds before the attempt after `attempt` (from 1): doubling, jittered by 15 %."""
    if asked_s is not None:
        return min(asked_s, LONGEST_WAIT_S)
    wait = min(FIRST_WAIT_S * 2.0 ** min(attempt - 1, 20), LONGEST_WAIT_S)
    return wait * random.uniform(0.85, 1.15)  # noqa: S311 - jitter, not a secret


class Lane:
    """Delivers until canceled. A restart sends the batch of unknown outcome first, as it was."""

    def __init__(
        self,
        consumer: Consumer,
        cursor: Cursor,
        reader: LogReader,
        store: CursorStore,
        pusher: Pusher,
        headers_for: HeadersFor,
        parked_rows: set[str],
    ) -> None:
        self.consumer = consumer
        self.cursor = cursor
        self._reader = reader
        self._store = store
        self._pusher = pusher
        self._headers_for = headers_for
        self._renderer = Renderer(consumer)
        self._parked_rows = parked_rows
        self._limit = consumer.definition.batch_size

    def use(self, consumer: Consumer) -> None:
        """Go on with a changed definition from the next batch on."""
        self.consumer = consumer
        self._renderer = Renderer(consumer)
        self._limit = consumer.definition.batch_size

    async def run(self) -> None:
        """Deliver for ever; returns only when the endpoint says it is gone (410)."""
        batch = await self._unsettled()
        while True:
            if batch is None:
                batch = await self._next()
            if not await self._deliver(batch):
                return
            batch = None

    async def _next(self) -> Batch:
        while True:
            await self._reader.wait(self.cursor.partition, self.cursor.position)
            limit = max(self._limit, READ_LIMIT)
            head = self._reader.head
            entries = await self._reader.read(self.cursor.partition, self.cursor.position, limit)
            if not entries:
                self.cursor.position = head
                continue
            batch = self._collect(entries)
            if batch.entries or batch.waiting:
                return batch
            self.cursor.position = batch.last

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
            await self._settle(batch, datetime.now(UTC), Answer("delivered", None), batch.last)
            return True
        while True:
            sent_at, answer = await self._attempt(batch)
            if answer.verdict == "delivered":
                reach("delivered-before-cursor")
                await self._settle(batch, sent_at, answer, batch.last)
                self._limit = min(self._limit * 2, self.consumer.definition.batch_size)
                return True
            if answer.verdict == "content_refused":
                await self._isolate(batch, sent_at, answer)
                return True
            await self._settle(batch, sent_at, answer, None)
            await self._store.save_error(self.consumer.id, answer.error)
            if answer.verdict == "gone":
                logger.error("%s: the endpoint is gone (410); disabled", self.consumer.name)
                await self._store.disable(self.consumer.id)
                return False
            await self._back_off(answer)

    async def _back_off(self, answer: Answer) -> None:
        wait_s = backoff_s(self.cursor.attempt, answer.retry_after_s)
        name, next_attempt = self.consumer.name, self.cursor.attempt + 1
        logger.warning(
            "delivery of %s: %s; attempt %d in %.1f s", name, answer.error, next_attempt, wait_s
        )
        await asyncio.sleep(wait_s)

    async def _attempt(self, batch: Batch) -> tuple[datetime, Answer]:
        definition = self.consumer.definition
        self.cursor.batch_id = batch.id
        self.cursor.batch_last = batch.last
        self.cursor.attempt += 1
        await self._store.begin(self.cursor)
        push = Push(
            url=self.consumer.endpoint_url,
            body=batch.body(single=definition.batch_size == 1),
            batch_id=batch.id,
            attempt=self.cursor.attempt,
            timeout_s=definition.timeout_s,
            headers=self._headers_for(self.consumer),
        )
        sent_at = datetime.now(UTC)
        reach("post-before")
        answer = await self._pusher.send(push)
        reach("post-after")
        return sent_at, answer

    async def _isolate(self, batch: Batch, sent_at: datetime, answer: Answer) -> None:
        """Find what the receiver refuses by halving; what is refused alone is parked."""
        if len(batch.entries) > 1:
            # The first half goes again as a batch of its own; the limit grows back from there.
            self._limit = (len(batch.entries) + 1) // 2
            await self._settle(batch, sent_at, answer, self.cursor.position)
            return
        entry, reason = batch.entries[0], answer.error or "refused"
        logger.warning("parked a message of %s: %s", row_of(entry), reason)
        refused = ParkedMessage(entry.position, row_of(entry), batch.messages[0], reason)
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
        parked = [*refused, *self._failed(batch, answer)]
        if move_to == batch.last:
            parked += self._behind(batch)
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

    def _failed(self, batch: Batch, answer: Answer) -> list[ParkedMessage]:
        reasons = {item.idempotency_key: item.error for item in answer.failed}
        if not reasons:
            return []
        keys = [idempotency_key(self.consumer, entry) for entry in batch.entries]
        return [
            ParkedMessage(entry.position, row_of(entry), message, reasons[key])
            for entry, message, key in zip(batch.entries, batch.messages, keys, strict=True)
            if key in reasons
        ]

    def _behind(self, batch: Batch) -> list[ParkedMessage]:
        return [
            ParkedMessage(
                entry.position,
                row_of(entry),
                self._renderer.message(entry),
                "waits behind a parked message of its row",
            )
            for entry in batch.waiting
        ]
