"""Somebody who pauses, resumes, replays and backfills consumers while they are at work."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import UTC, datetime, timedelta

from tests.faults.rig.every_option import ALL
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.definition import TableName
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

#: Those that nothing is skipped of: of the others a replay would forget what was parked.
REPLAYED = ("good_changes", "good_rows", "rude_timed", "pulled_changes")

BACKFILLED = ("good_rows", "flaky_sorted", "good_functions", "pulled_groups", "pulled_changes")

PAUSED = ("good_single", "slow_few", "busy_grouped", "pulled_groups", "good_functions")


class Meddler:
    """Does one of these every few seconds, until stopped; then all consumers run again."""

    def __init__(self, settings: Settings, seed: int, every_s: float = 2.0) -> None:
        self._settings = settings
        self._choose = random.Random(f"{seed}/meddler")
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._keep()))
        #: How often each was done.
        self.done = {"pause": 0, "replay": 0, "backfill": 0}

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _keep(self) -> None:
        while not self._stop.wait(self._every_s):
            what = self._choose.choice([*self.done])
            try:
                if what == "pause":
                    await self._pause(self._choose.choice(PAUSED))
                elif what == "replay":
                    await self._replay(self._choose.choice(REPLAYED))
                else:
                    await self._backfill(self._choose.choice(BACKFILLED))
            except TriggerkitError:
                continue  # a backfill of the table is under way, for example
            self.done[what] += 1

    async def _pause(self, name: str) -> None:
        async with await connect(self._settings.state_dsn, "test") as state:
            consumers = Consumers(state, "test")
            await consumers.pause(await consumers.find(name))
            self._stop.wait(self._every_s / 2)
            await consumers.resume(await consumers.find(name))

    async def _replay(self, name: str) -> None:
        to = datetime.now(UTC) - timedelta(seconds=self._choose.randrange(1, 10))
        async with await connect(self._settings.state_dsn, "test") as state:
            consumers = Consumers(state, "test")
            await consumers.replay(await consumers.find(name), to.isoformat())

    async def _backfill(self, name: str) -> None:
        async with (
            await connect(self._settings.source_dsn, "test") as source,
            await connect(self._settings.state_dsn, "test") as state,
        ):
            store = BackfillStore(state, "test")
            table = TableName.parse(self._choose.choice(ALL[: len(ALL) // 2]))
            await store.start(source, name, [table])
