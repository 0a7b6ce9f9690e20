"""The log of a test's source, whose changes are appended as the stream does it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.capture.rig.source import SLOT, Source
from triggerkit.consumers.appender import Appender, split_at_last_end
from triggerkit.consumers.backfill.scheduler import Backfills
from triggerkit.consumers.declare.follow import follow
from triggerkit.consumers.source.database import Database
from triggerkit.log.entry import Entry
from triggerkit.log.writer import LogWriter
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.connect import connect, pool


def follow_for_log(source: Source, url: str, database_id: int, *tables: str) -> None:
    """Make publication and slot, and have the state know the tables, as `apply` does."""

    async def run() -> None:
        database = Database(database_id, "d", SLOT, PUBLICATION, 1, "s")
        async with await connect(source.url, "test") as own, await connect(url, "test") as state:
            await follow(own, state, database, [("public", table) for table in tables])

    asyncio.run(run())
    source.follow(*tables)


class Log:
    """The log of a source, whose changes are appended as the stream does it."""

    def __init__(self, source: Source, url: str, database_id: int) -> None:
        self.source, self._url, self._id = source, url, database_id

    def follow(self, *tables: str) -> None:
        """Follow tables as `apply` does."""

        follow_for_log(self.source, self._url, self._id, *tables)

    def entries(self) -> list[Entry]:
        """What is captured since the last call, through the log."""

        async def run() -> list[Entry]:
            states = pool(self._url, "test", size=1)
            async with LogWriter.open(self._url, self._id) as writer, self.source.capture() as c:
                appender = Appender(writer, Backfills(self.source.url, states, self._id, "p"))
                parts = await self.source.read_all(c)
                found = [await appender.append(some) for some in split_at_last_end(parts)]
            return [entry for entries, _ in found for entry in entries]

        return asyncio.run(run())

    def last(self) -> Any:
        """The record of the last change, with what it leaves out under the name None."""
        entry = self.entries()[-1]
        return json.loads(entry.record or b"{}") | (
            {None: entry.unchanged} if entry.unchanged else {}
        )
