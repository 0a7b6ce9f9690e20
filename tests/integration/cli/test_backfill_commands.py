"""`triggerkit backfill` as one types it, beside a stream."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from tests.acceptance.project import run_command
from tests.acceptance.terminal import Terminal
from tests.integration.consumers.backfill.operator import TABLE
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import rows
from triggerkit.settings import Settings


class Commands:
    """Runs `triggerkit backfill …` in a thread."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings

    async def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            run_command,
            self.folder,
            "triggerkit",
            "backfill",
            *arguments,
            settings=self.settings.environment(),
        )


@asynccontextmanager
async def prepared(settings: Settings, receiver: Receiver, folder: Path) -> AsyncIterator[Commands]:
    await execute(settings, TABLE, "INSERT INTO items SELECT i FROM generate_series(1, 2000) i")
    await declare(settings, receiver, rows("items", batch_size=100, start="end"))
    yield Commands(folder, settings)


def test_a_backfill_is_started_listed_paused_resumed_and_watched(
    settings: Settings, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            prepared(settings, receiver, tmp_path) as backfill,
        ):
            started = await backfill("start", "test", "--sort-by", "version", "--from", "0")
            assert "started backfill 1 of public.items" in started.stdout, started.stderr
            assert 'CREATE INDEX CONCURRENTLY ON "public"."items" ("version");' in started.stdout
            assert "triggerkit stream" in started.stdout
            again = await backfill("start", "test")
            assert again.returncode == 1
            assert "triggerkit backfill cancel 1" in again.stderr
            assert (await backfill("pause", "1")).stdout == "paused backfill 1\n"
            listed = orjson.loads((await backfill("list", "--json")).stdout)
            assert [(b["id"], b["state"], b["from"]) for b in listed] == [(1, "paused", "0")]
            assert (await backfill("resume", "1")).stdout == "resumed backfill 1\n"
            table = (await backfill("list")).stdout
            assert "public.items (version from 0)" in table
            async with streaming(settings, receiver):
                watched = await backfill("watch", "1")
            last = watched.stdout.splitlines()[-1]
            assert last.startswith("backfill 1 test public.items completed: 2,000 of 2,000 (100 %)")
            assert watched.returncode == 0
            assert "1" not in (await backfill("list")).stdout
            assert "completed" in (await backfill("list", "--all")).stdout

    asyncio.run(scenario())


def test_a_bar_is_drawn_on_a_terminal(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            prepared(settings, receiver, tmp_path) as backfill,
            streaming(settings, receiver),
        ):
            started = await backfill("start", "test", "--rows-per-second", "500")
            assert "triggerkit stream" not in started.stdout
            terminal = Terminal(
                tmp_path, "triggerkit", "backfill", "watch", settings=settings.environment()
            )
            try:
                for text in ("━", "rows/s", "left", "2,000 of 2,000 (100 %)"):
                    await asyncio.to_thread(terminal.wait_for, text)
            finally:
                terminal.close()

    asyncio.run(scenario())


def test_errors_name_what_there_is(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            prepared(settings, receiver, tmp_path) as backfill,
        ):
            unknown = await backfill("start", "tset")
            assert (unknown.returncode, "known consumers: test" in unknown.stderr) == (1, True)
            bound = await backfill("start", "test", "--sort-by", "version", "--until", "soon")
            assert bound.returncode == 2
            assert "column 'version' of public.items, whose type is integer" in bound.stderr
            missing = await backfill("watch", "7")
            assert "there is no backfill 7" in missing.stderr

    asyncio.run(scenario())
