"""Runs the lanes of all consumers of one database."""

from __future__ import annotations

import asyncio
import logging

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursor import CursorStore
from triggerkit.consumers.retention import Progress
from triggerkit.delivery.isolation import Health
from triggerkit.delivery.lane import CredentialsFor, Lane
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.turns import Turns
from triggerkit.log.reader import LogReader

logger = logging.getLogger(__name__)


class DeliveryLoop:
    """One task per consumer and partition; `refresh` follows what changed in the state."""

    def __init__(
        self,
        reader: LogReader,
        store: CursorStore,
        pusher: Pusher,
        credentials_for: CredentialsFor,
        group: asyncio.TaskGroup,
    ) -> None:
        self._reader = reader
        self._store = store
        self._pusher = pusher
        self._credentials_for = credentials_for
        self._group = group
        self._lanes: dict[int, list[Lane]] = {}
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> list[Consumer]:
        """Start lanes of new consumers, stop those of paused and deleted ones."""
        # One at a time: two that start the same consumer would deliver everything twice.
        async with self._refreshing:
            return await self._refresh()

    def progress(self) -> list[Progress]:
        """How far each lane is that has nothing under way: what it passed over is not stored."""
        return [
            Progress(
                lane.consumer.id,
                lane.consumer.replay_epoch,
                lane.cursor.partition,
                lane.cursor.position,
            )
            for lanes in self._lanes.values()
            for lane in lanes
            if lane.cursor.batch_id is None
        ]

    async def _refresh(self) -> list[Consumer]:
        consumers = await self._store.consumers()
        active = {c.id: c for c in consumers if c.state == "active" and c.target is not None}
        for consumer_id in [i for i in self._tasks if i not in active or self._has_ended(i)]:
            await self._stop(consumer_id)
        for consumer in active.values():
            if consumer.id in self._lanes:
                for lane in self._lanes[consumer.id]:
                    lane.use(consumer)
            else:
                await self._start(consumer)
        return consumers

    async def _start(self, consumer: Consumer) -> None:
        parked = await self._store.parked_rows(consumer.id)
        health, turns = Health(), Turns()
        lanes = [
            Lane(
                consumer,
                cursor,
                self._reader,
                self._store,
                self._pusher,
                self._credentials_for,
                parked,
                health,
                turns,
            )
            for cursor in await self._store.load(consumer.id)
        ]
        self._lanes[consumer.id] = lanes
        self._tasks[consumer.id] = [
            self._group.create_task(lane.run(), name=f"lane {consumer.name}/{number}")
            for number, lane in enumerate(lanes)
        ]

    def _has_ended(self, consumer_id: int) -> bool:
        # A lane ends when the endpoint is gone; the consumer is active again since.
        return any(task.done() for task in self._tasks[consumer_id])

    async def _stop(self, consumer_id: int) -> None:
        tasks = self._tasks.pop(consumer_id)
        del self._lanes[consumer_id]
        for task in tasks:
            task.cancel()
        # Waited for: a lane in the midst of a statement would move the cursor of its successor.
        await asyncio.gather(*tasks, return_exceptions=True)
