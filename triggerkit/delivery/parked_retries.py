"""Parked messages of one consumer tried again, each alone, the first of each key when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.parked.message import Head, HeadState, Tried
from triggerkit.consumers.parked.origin import Origin
from triggerkit.consumers.render import batch_body
from triggerkit.consumers.selection import Faulty
from triggerkit.delivery.batch import new_id
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.delivery.direct.way import NotMade
from triggerkit.delivery.lane import Lane
from triggerkit.delivery.parking import state_after
from triggerkit.delivery.push import GONE, Answer, of_batch
from triggerkit.delivery.tunnel.way import first_of
from triggerkit.state.backoff import backoff_s

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A retry that was sent: what the endpoint failed with, None if it took the message."""

    batch_id: str
    sent_at: datetime
    answer: Answer
    error: str | None
    #: Whether the message is to blame; else the endpoint failed.
    is_blamed: bool
    asked_s: float | None
    #: What lets the next attempt come at once, since this one was begun.
    changes: Sequence[asyncio.Event]


class Retries:
    """Try the parked messages of a consumer again, until canceled.

    At most half of the consumer's pushes under way are retries, so that neither a thousand keys
    that are due at once nor one that always fails hold up the lanes. Only what is being sent is
    in memory. An attempt counts towards `max_attempts` when the message is to blame: refused for
    its content, named as failed, or failed at by an endpoint that took the push it answered next.
    """

    def __init__(self, delivery: ConsumerDelivery, lanes: Sequence[Lane]) -> None:
        self._delivery = delivery
        self._lanes = lanes
        self._store = delivery.store.parked
        self._busy = delivery.retried_keys

    @property
    def _consumer(self) -> Consumer:
        return self._delivery.consumer

    async def run(self) -> None:
        """Try what is due, until canceled, or until nothing more is to be sent."""
        for lane in self._lanes:
            await lane.ready.wait()
        retry, delivery = self._delivery.retry, self._delivery
        async with asyncio.TaskGroup() as group:
            hurrying = group.create_task(self._hurry(), name=f"hurry {self._consumer.name}")
            while self._busy or not delivery.is_draining:
                retry.clear()
                delivery.is_awaited = False
                wait_s = None if delivery.is_draining else await self._start_due(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await retry.wait()
            hurrying.cancel()

    async def _hurry(self) -> None:
        """Have all tried at once whenever a command has opened a tunnel to the endpoint; one that
        only connects anew, by a bad line, would use up their attempts."""
        known = self._delivery.openings
        while not self._delivery.is_draining:
            changes = self._delivery.changes()
            if (openings := self._delivery.openings) == known:
                await first_of(changes)
                continue
            known = openings
            await self._store.hurry(self._consumer.id)
            self._delivery.retry.set()

    async def _start_due(self, group: asyncio.TaskGroup) -> float | None:
        """Start what is due, as far as there is room; returns the seconds until there is more."""
        # Keys that wait for their lane: they take no room from those due after them.
        held: set[str] = set()
        while True:
            room = max(1, self._consumer.definition.concurrency // 2) - len(self._busy)
            if room <= 0:
                return None
            heads = await self._store.due(self._consumer.id, room, self._busy | held)
            if not (heads or held or self._busy):
                await self._let_all_go()
            count_before = len(held)
            for head in heads:
                if head.due_in_s > 0:
                    return head.due_in_s
                # From here on the key's later messages are parked; one that was collected before
                # is waited for.
                self._delivery.parked_keys.add(head.key)
                if any(lane.holds(head.key) for lane in self._lanes):
                    self._delivery.is_awaited = True
                    held.add(head.key)
                else:
                    self._busy.add(head.key)
                    group.create_task(self._retry(head), name=f"retry {self._consumer.name}")
            if len(held) == count_before:
                return None

    async def _let_all_go(self) -> None:
        """Forget keys whose messages were discarded by a command."""
        async with self._delivery.parking:
            if self._delivery.parked_keys and await self._store.is_empty(self._consumer.id):
                self._delivery.parked_keys.clear()

    async def _retry(self, head: Head) -> None:
        try:
            await self._try(head)
        finally:
            self._busy.discard(head.key)
            self._delivery.retry.set()
            self._delivery.barrier.tell()

    async def _try(self, head: Head) -> None:
        if not await self._delivery.until_open():
            return
        failures = head.failures + self._delivery.health.is_blamed(head.position)
        state = state_after(self._consumer.definition, failures)
        if state != "failing":
            await self._record(head, Tried(state, failures))
            return
        async with self._delivery.slots:
            body = await self._store.begin(self._consumer.id, head, failures)
            if body is None:
                await self._release(head.key)
                return
            head = replace(head, attempts=head.attempts + 1, failures=failures)
            sent = await self._send(head, body)
        if sent is not None:
            await self._sent(head, sent)

    async def _send(self, head: Head, body: bytes) -> _Sent | None:
        """Send a message as the consumer's functions would have it now; None when they fail."""
        made = await self._delivery.outcome(head, body)
        definition = self._consumer.definition
        if made is None:
            logger.info("%s: position %d no longer passes the filters", head.key, head.position)
            await self._record(head, Tried(None, head.failures))
            return None
        if isinstance(made, Faulty):
            await self._record(head, self._blamed(head, made.reason))
            return None
        identity = head.idempotency_key or Origin.in_body(body).idempotency_key
        pushed = batch_body([made], single=definition.sends_alone)
        # Another transform's body is another push.
        batch_id = new_id(pushed, identity)
        health = self._delivery.health
        health.sent += 1
        number = health.sent
        sent_at, changes = datetime.now(UTC), self._delivery.changes()
        answer = await self._delivery.push_parked(head, body, pushed, batch_id)
        answer = of_batch(answer, [identity])
        if answer.failed:
            named = answer.failed[0]
            wait_s = named.retry_after_s
            return _Sent(
                batch_id,
                sent_at,
                answer,
                named.error,
                is_blamed=True,
                asked_s=wait_s,
                changes=changes,
            )
        if answer.verdict == "delivered":
            health.witnessed(number, ok=True)
        elif answer.verdict == "endpoint_failed" and answer.is_suspect:
            health.failed_alone(head.position, number)
        is_refused = answer.verdict == "content_refused"
        asked_s = answer.retry_after_s
        return _Sent(batch_id, sent_at, answer, answer.error, is_refused, asked_s, changes)

    async def _sent(self, head: Head, sent: _Sent) -> None:
        try:
            await self._record(head, self._tried(head, sent), sent.answer)
        except NotMade as not_made:
            answer = not_made.answer
            is_blamed = answer.verdict == "content_refused"
            sent = replace(sent, answer=answer, error=answer.error, is_blamed=is_blamed)
            await self._record(head, self._tried(head, sent))
        if sent.answer.verdict == "gone":
            logger.error(GONE, self._consumer.name)
            await self._delivery.store.disable(self._consumer.id)

    def _tried(self, head: Head, sent: _Sent) -> Tried:
        if sent.is_blamed:
            tried = self._blamed(head, sent.error, sent.answer.status, sent.asked_s)
        elif sent.answer.verdict == "delivered":
            tried = Tried(None, head.failures)
        else:
            is_repeated = head.status == sent.answer.status
            wait_s = backoff_s(head.attempts, sent.asked_s, is_repeated=is_repeated)
            if any(change.is_set() for change in sent.changes):
                wait_s = 0.0
            tried = Tried("failing", head.failures, due_in_s=wait_s)
        return replace(
            tried,
            batch_id=sent.batch_id,
            sent_at=sent.sent_at,
            status=sent.answer.status,
            error=sent.error,
        )

    def _blamed(
        self,
        head: Head,
        reason: str | None,
        status: int | None = None,
        asked_s: float | None = None,
    ) -> Tried:
        """Blame the message: it failed by its own fault."""
        failures = head.failures + 1
        state = state_after(self._consumer.definition, failures)
        wait_s = backoff_s(head.attempts, asked_s, is_repeated=head.status == status)
        return Tried(state, failures, reason, wait_s)

    async def _record(self, head: Head, tried: Tried, answer: Answer | None = None) -> None:
        if tried.state is not None:
            _tell(self._consumer, head, tried.state, tried)
        async with self._delivery.parking:
            if not await self._delivery.record_retry(head, tried, answer):
                self._delivery.parked_keys.discard(head.key)

    async def _release(self, key: str) -> None:
        """Let go of a key whose message was discarded as it was about to be sent."""
        async with self._delivery.parking:
            if not await self._store.has(self._consumer.id, key):
                self._delivery.parked_keys.discard(key)


def _tell(consumer: Consumer, head: Head, state: HeadState, tried: Tried) -> None:
    what = tried.error or tried.reason or "failed"
    ends = {
        "failing": f"attempt {head.attempts + 1} in {tried.due_in_s:.1f} s",
        "blocked": "attempts used up; its key waits: triggerkit messages retry, or discard",
        "dead": "attempts used up; set aside for good",
    }
    level = logging.INFO if state == "failing" else logging.WARNING
    name, position = consumer.name, head.position
    logger.log(level, "parked message %d of %s: %s; %s", position, name, what, ends[state])
