"""Shows how far the open backfills are, whenever one of them moved."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.state.connect import connect
from triggerkit.supervisor.dev.console import Console

#: Seconds between two looks while a backfill is open, and while none is.
OPEN_S = 0.25
IDLE_S = 1.0

_BACKFILLS = """
SELECT b.id, c.name || ' ' || b.table_name, rows_read, rows_estimated, b.state
FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id
"""


class _Progress(NamedTuple):
    id: int
    name: str
    done: int
    total: int
    state: str


class BackfillDisplay:
    """Show each open backfill, and nothing twice."""

    def __init__(self, dsn: str, console: Console) -> None:
        self._dsn = dsn
        self._console = console
        self._shown: dict[int, _Progress] = {}

    async def follow(self) -> None:
        """Show them until canceled, through losses of the connection."""
        while True:
            with contextlib.suppress(psycopg.OperationalError, TriggerkitError):
                async with await connect(self._dsn, "triggerkit dev") as state:
                    while True:
                        for row in await (await state.execute(_BACKFILLS)).fetchall():
                            self._show(_Progress(*row))
                        await asyncio.sleep(OPEN_S if self._shown else IDLE_S)
            await asyncio.sleep(IDLE_S)

    def _show(self, now: _Progress) -> None:
        before = self._shown.get(now.id)
        has_stopped = now.state != "active"
        # One that had stopped before this `dev` looked is no news.
        if now == before or (has_stopped and before is None):
            return
        self._console.backfill(now.name, now.done, now.total, state=now.state)
        if has_stopped:
            del self._shown[now.id]
        else:
            self._shown[now.id] = now
