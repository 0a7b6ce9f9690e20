"""Runs the lanes and the retries of all consumers of one database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import CursorMoved
from triggerkit.consumers.cursors.store import UNLOADABLE, CursorStore
from triggerkit.consumers.retention import CursorProgress
from triggerkit.consumers.shared_parts import SharedParts
from triggerkit.delivery.consumer_delivery import ConsumerDelivery, CredentialsFor
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.kafka.way import KafkaWay
from triggerkit.delivery.lane import Lane
from triggerkit.delivery.parked_retries import Retries
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.tunnel.way import TunnelWay
from triggerkit.errors import ConfigurationError
from triggerkit.log.reader import LogReader
from triggerkit.state.task_group import start_in

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A consumer being delivered, and the tasks that do it."""

    delivery: ConsumerDelivery
    lanes: list[Lane]
    tasks: list[asyncio.Task[None]]

    def drain(self) -> list[asyncio.Task[None]]:
        """End what sends nothing at this moment; return the tasks of what does, which end then."""
        sending = self.delivery.drain()
        for lane, task in zip([*self.lanes, None], self.tasks, strict=True):
            if not (sending if lane is None else lane.is_sending):
                task.cancel()
        return [task for task in self.tasks if not task.cancelling()]

    def goes_on_as(self, consumer: Consumer) -> bool:
        """Return whether `consumer` is this one in the same places of the log."""
        before = self.delivery.consumer
        return (
            not any(task.done() for task in self.tasks)
            and before.replay_epoch == consumer.replay_epoch
            and before.definition.group_by == consumer.definition.group_by
            and before.definition.via == consumer.definition.via
            and before.definition.task == consumer.definition.task
        )


class DeliveryLoop:
    """One task per consumer and partition; `refresh` follows what changed in the state."""

    def __init__(
        self,
        reader: LogReader,
        store: CursorStore,
        pusher: Pusher,
        credentials_for: CredentialsFor,
        direct: DirectWay,
        group: asyncio.TaskGroup,
        kafka: KafkaWay | None = None,
        tunnels: TunnelWay | None = None,
    ) -> None:
        self._reader = reader
        self._parts = SharedParts(reader.followers)
        self._store = store
        self._pusher = pusher
        self._credentials_for = credentials_for
        self._direct = direct
        self._kafka = kafka
        self._tunnels = tunnels
        self._group = group
        self._running: dict[int, _Running] = {}
        #: Consumers that cannot run, and why.
        self._broken: dict[int, str] = {}
        self._refreshing = asyncio.Lock()
        self._is_draining = False

    async def refresh(self) -> list[Consumer]:
        """Start lanes of new consumers, stop those of paused, rewound and deleted ones."""
        # One at a time: two that start the same consumer would deliver everything twice.
        async with self._refreshing:
            return [] if self._is_draining else await self._refresh()

    async def drain(self, grace_s: float) -> None:
        """Begin no more pushes, and return once those under way have ended and are recorded, after
        `grace_s` at the latest."""
        self._is_draining = True
        async with self._refreshing:
            sending = [task for running in self._running.values() for task in running.drain()]
        if sending:
            _, late = await asyncio.wait(sending, timeout=grace_s)
            if late:
                logger.warning(
                    "%d pushes took longer than %g s; they are made again", len(late), grace_s
                )

    async def end(self) -> None:
        """End what was started beside the lanes, at once."""
        for running in self._running.values():
            await running.delivery.end()

    def progress(self) -> list[CursorProgress]:
        """Return how far each lane is that has nothing under way: what it passed over is not
        stored."""
        return [
            CursorProgress(
                running.delivery.consumer.id,
                running.delivery.consumer.replay_epoch,
                cursor.partition,
                cursor.position,
            )
            for running in self._running.values()
            for lane in running.lanes
            if (cursor := lane.settle()).batch_id is None
        ]

    async def _refresh(self) -> list[Consumer]:
        consumers = await self._store.consumers()
        active = {c.id: c for c in consumers if c.state == "active" and not c.is_pulled}
        for consumer_id, running in list(self._running.items()):
            consumer = active.get(consumer_id)
            if consumer is None or not running.goes_on_as(consumer):
                await self._stop(consumer_id)
        # Those whose code has to be loaded last: the others do not wait for that.
        for consumer in sorted(active.values(), key=_needs_code):
            try:
                await self._take_in(consumer)
            except ConfigurationError as error:
                await self._break(consumer, str(error))
        return consumers

    async def _take_in(self, consumer: Consumer) -> None:
        running = self._running.get(consumer.id)
        if running is None:
            await self._start(consumer)
        else:
            await running.delivery.use(consumer)
            # A command may have changed its parked messages.
            running.delivery.retry.set()

    async def _start(self, consumer: Consumer) -> None:
        delivery = ConsumerDelivery(
            consumer,
            self._reader,
            self._store,
            self._pusher,
            self._credentials_for,
            self._direct,
            self._kafka,
            self._tunnels,
            self._parts.of,
        )
        try:
            if delivery.needs_code:
                await delivery.start()
                await self._store.clear_unloadable(consumer.id)
            self._broken.pop(consumer.id, None)
            running = await self._start_lanes(delivery)
        except BaseException:
            await delivery.end()
            raise
        if running is None:
            await delivery.end()
        else:
            self._running[consumer.id] = running

    async def _start_lanes(self, delivery: ConsumerDelivery) -> _Running | None:
        """Start what delivers; None if the consumer was rewound or deleted since: that is
        notified, and taken in next."""
        consumer = delivery.consumer
        lanes = [Lane(delivery, cursor) for cursor in await self._store.load(consumer)]
        if not lanes:
            return None
        # After the cursors: what is parked since then moved one of them, which its lane notices.
        delivery.parked_keys = await self._store.parked.keys(consumer.id)
        retries = Retries(delivery, lanes)
        works = [(f"lane {number}", lane.run) for number, lane in enumerate(lanes)]
        works.append(("retries", retries.run))
        tasks = [
            start_in(self._group, partial(self._run, work), f"{name} of {consumer.name}")
            for name, work in works
        ]
        return _Running(delivery, lanes, tasks)

    async def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do `work`; when it ends, see what became of its consumer."""
        try:
            await work()
        except CursorMoved:
            logger.info("a command moved or removed a cursor; continuing from where it is")
        except ConfigurationError as error:
            logger.error("the project's code had to be loaded anew: %s", error)
        start_in(self._group, self.refresh, "refresh")

    async def _break(self, consumer: Consumer, reason: str) -> None:
        """Show that a consumer cannot run; the others go on."""
        if consumer.id in self._running:
            await self._stop(consumer.id)
        if self._broken.get(consumer.id) != reason:
            logger.error("consumer %s cannot run: %s", consumer.name, reason)
        self._broken[consumer.id] = reason
        await self._store.save_error(consumer.id, f"{UNLOADABLE}{reason}")

    async def _stop(self, consumer_id: int) -> None:
        running = self._running.pop(consumer_id)
        tasks = running.tasks
        for task in tasks:
            task.cancel()
        # Waited for: a lane in the midst of a statement would move the cursor of its successor.
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.delivery.end()


def _needs_code(consumer: Consumer) -> bool:
    wanted = consumer.definition
    return wanted.has_own_way or bool(wanted.filter or wanted.transform)
