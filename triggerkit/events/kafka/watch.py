"""Tell those who wait for messages of Kafka that some came: one look at the ends serves all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.events.source import TopicPartition

#: Seconds between two looks, and after one that failed.
PAUSE_S: Final = 0.1
FAULT_PAUSE_S: Final = 1.0

Ends = Callable[[Collection[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]


class Watch:
    """Looks at the ends of partitions as long as somebody waits. Used in one event loop."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._waiting: dict[asyncio.Event, frozenset[TopicPartition]] = {}
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def woken_by(self, keys: Collection[TopicPartition]) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set when something is written to one of `keys`, and when Kafka
        does not answer; so look after entering."""
        woken = asyncio.Event()
        self._waiting[woken] = frozenset(keys)
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="kafka watch")
        try:
            yield woken
        finally:
            del self._waiting[woken]

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        known: Mapping[TopicPartition, int] = {}
        try:
            while self._waiting:
                known, pause_s = await self._found(known)
                await asyncio.sleep(pause_s)
        finally:
            self._task = None

    async def _found(
        self, known: Mapping[TopicPartition, int]
    ) -> tuple[Mapping[TopicPartition, int], float]:
        keys = frozenset[TopicPartition]().union(*self._waiting.values())
        try:
            found = await self._ends(keys)
        except (TriggerkitError, psycopg.Error):
            # They see for themselves, and tell.
            for woken in self._waiting:
                woken.set()
            return {}, FAULT_PAUSE_S
        for woken, own in self._waiting.items():
            # Of one that came just now, nothing is known: it looks once more.
            if any(found.get(key) != known.get(key) for key in own):
                woken.set()
        return found, PAUSE_S
