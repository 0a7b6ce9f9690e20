"""Deliver the partitions of a log on Kafka that this process has, as long as it has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.cursors.owned import OwnedCursors
from triggerkit.consumers.extents import note_extents
from triggerkit.delivery.consumer_delivery import CredentialsFor
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.loop import DeliveryLoop
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.tunnel.way import TunnelWay
from triggerkit.kafkalog.message import MARK
from triggerkit.kafkalog.reader import KafkaLogReader
from triggerkit.kafkalog.stored import StoredLog
from triggerkit.log.entry import Entry

logger = logging.getLogger(__name__)

#: Seconds between two times that what was passed over is stored: truncates wait for it elsewhere.
SAVE_S: Final = 2.0

#: Makes the deliveries of what is read and stored so; they run in the group.
MakeLoop = Callable[[KafkaLogReader, OwnedCursors, asyncio.TaskGroup], DeliveryLoop]


def loops(
    pusher: Pusher,
    credentials_for: CredentialsFor,
    direct: DirectWay,
    tunnels: TunnelWay | None = None,
) -> MakeLoop:
    """Return what makes deliveries by these ways."""

    def make(reader: KafkaLogReader, store: OwnedCursors, group: asyncio.TaskGroup) -> DeliveryLoop:
        return DeliveryLoop(reader, store, pusher, credentials_for, direct, group, None, tunnels)

    return make


class Partitions:
    """The partitions of this process: claimed, delivered, and given up, again and again."""

    def __init__(
        self,
        states: AsyncConnectionPool,
        database_id: int,
        stored: StoredLog,
        make: MakeLoop,
        group: asyncio.TaskGroup,
        grace_s: float,
        changed: Callable[[bool], None],
    ) -> None:
        """`grace_s` is what pushes under way have when the partitions are given up in order.
        `changed` is told whether this process has partitions, whenever that is decided anew."""
        self._states = states
        self._database_id = database_id
        self._stored = stored
        self._make = make
        self._group = group
        self._grace_s = grace_s
        self._changed = changed
        self._store: OwnedCursors | None = None
        self._reader: KafkaLogReader | None = None
        self._loop: DeliveryLoop | None = None
        self._delivering: asyncio.Task[None] | None = None

    async def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take the partitions, whoever has them; return the offsets from which on to be told."""
        self._store = OwnedCursors(self._states, self._database_id, partitions)
        await self._store.claim()
        ends = await self._stored.ends(partitions)
        heads = {n: end.last.entry.position for n, end in ends.items() if end.last is not None}
        # Before a cursor is read: what it is before is not there to be delivered.
        await self._note(partitions)
        self._reader = KafkaLogReader(
            self._states, self._database_id, heads, self._stored, self._dropped
        )
        return {number: end.offset for number, end in ends.items()}

    async def begin(self) -> None:
        """Deliver what was claimed."""
        begun = asyncio.Event()
        self._delivering = self._group.create_task(self._deliver(begun), name="partitions")
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({waiting, self._delivering}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._changed(self._loop is not None)

    async def end(self, *, in_order: bool) -> None:
        """Deliver no more; in order, what is under way is ended before."""
        loop, task = self._loop, self._delivering
        self._loop = self._delivering = None
        if loop is not None and in_order:
            await loop.drain(self._grace_s)
            await self._save(loop)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def stand_by(self) -> None:
        """Have no partitions: others have them all."""
        self._changed(False)

    async def came(self, entries: Mapping[int, list[Entry]]) -> None:
        """Take in what came: what consumers are is looked at anew at marks, since what is behind
        one may be wanted for a backfill that began before it."""
        if any(entry.action == MARK for some in entries.values() for entry in some):
            await self.refresh()
        if self._reader is not None:
            for partition, some in entries.items():
                self._reader.came(partition, some)

    async def refresh(self) -> None:
        """Take in what was changed in the state."""
        if self._loop is not None:
            await self._loop.refresh()

    async def _dropped(self, partition: int) -> None:
        await self._note([partition])

    async def _note(self, partitions: Collection[int]) -> None:
        async with self._states.connection() as state:
            await note_extents(state, self._stored, self._database_id, partitions)

    async def _deliver(self, begun: asyncio.Event) -> None:
        assert self._store is not None
        assert self._reader is not None
        async with asyncio.TaskGroup() as group:
            loop = self._make(self._reader, self._store, group)
            try:
                await loop.refresh()
                self._loop = loop
                begun.set()
                while True:
                    await asyncio.sleep(SAVE_S)
                    await self._save(loop)
            finally:
                await loop.end()

    async def _save(self, loop: DeliveryLoop) -> None:
        if self._store is not None:
            await self._store.save(loop.progress())
