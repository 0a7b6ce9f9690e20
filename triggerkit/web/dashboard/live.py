"""Telling open pages that something changed: one look a second for all of them, and none without.

A page listens to server-sent events, and loads itself anew when it is told to. What is looked at is
how often the tables of the state were written, which Postgres counts anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

import psycopg
from psycopg_pool import PoolTimeout

from triggerkit.errors import CannotConnect
from triggerkit.state.faults import is_away
from triggerkit.web.dashboard.page import Answer, Asked, Moved, Route, Streamed
from triggerkit.web.dashboard.session import LOGIN

logger = logging.getLogger(__name__)

#: Seconds between two looks, and between two signs of life on a stream.
LOOK_S = 1.0
ALIVE_S = 15.0

#: Streams at a time; a page beyond them is not told, and says so.
MOST_STREAMS = 100

#: Heartbeats and cursors are written while nothing happens: of those only what tells something.
_LOOK = """
SELECT sum(pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
        + pg_stat_get_tuples_deleted(c.oid))::text
    || coalesce((SELECT string_agg(id || stopping, ',' ORDER BY id) FROM triggerkit.workers), '')
    || coalesce((SELECT string_agg(next_position::text, ',' ORDER BY id)
        FROM triggerkit.databases), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'triggerkit' AND c.relkind = 'r'
  AND c.relname NOT IN ('workers', 'databases', 'cursors', 'starts')
  AND c.relname NOT LIKE 'events%'
"""

ALIVE: Final = b": alive\n\n"


class Live:
    """The streams of one `serve`."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._streams = 0
        self._state = "changed"
        self._is_over = False

    @property
    def routes(self) -> tuple[Route, ...]:
        """The route of the streams."""
        return (Route("/live", self.stream),)

    async def stream(self, asked: Asked) -> Answer:
        """Tell a page when to load itself anew."""
        if asked.session is None:
            return Moved(asked.link(LOGIN[1:]))
        if self._streams >= MOST_STREAMS:
            return Streamed(_refused())
        return Streamed(self._events(asked))

    def stop(self) -> None:
        """End all streams, as the process is about to end."""
        self._is_over = True
        self._tell()

    async def _events(self, asked: Asked) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(asked))
            yield b"retry: 2000\n\n"
            if self._state == "away":
                yield _event("away")
            while not self._is_over and not asked.has_ended:
                try:
                    async with asyncio.timeout(ALIVE_S):
                        await self._changed.wait()
                except TimeoutError:
                    yield ALIVE
                else:
                    if not self._is_over:
                        yield _event(self._state)
            if asked.has_ended:
                yield _event("ended")
        finally:
            self._streams -= 1

    async def _look(self, asked: Asked) -> None:
        """Look until nobody listens any more."""
        before: str | None = None
        while self._streams and not self._is_over:
            started = time.monotonic()
            try:
                async with asked.call.state() as state:
                    row = await (await state.execute(_LOOK)).fetchone()
            except (psycopg.Error, PoolTimeout, CannotConnect) as error:
                if not isinstance(error, PoolTimeout | CannotConnect) and not is_away(error):
                    logger.warning("open pages are not told of changes (%s)", type(error).__name__)
                if self._state != "away":
                    self._state = "away"
                    self._tell()
            else:
                now = None if row is None else str(row[0])
                is_back, self._state = self._state == "away", "changed"
                if is_back or (before is not None and before != now):
                    self._tell()
                before = now
            # Where a look takes long, looks are seldom.
            await asyncio.sleep(max(LOOK_S, 10 * (time.monotonic() - started)))

    def _tell(self) -> None:
        told, self._changed = self._changed, asyncio.Event()
        told.set()


def _event(name: str) -> bytes:
    return f"event: {name}\ndata: {name}\n\n".encode()


async def _refused() -> AsyncIterator[bytes]:
    yield b"retry: 60000\n\n"
    yield _event("full")
