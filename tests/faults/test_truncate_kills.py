"""The stream is killed while a truncate is on its way: it is neither lost nor overtaken."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.acceptance.project import clean_environment
from tests.conformance import ways
from tests.integration.parked import until
from tests.integration.pipeline import declare, execute
from tests.integration.truncated import (
    ITEMS,
    OTHERS,
    Copy,
    rows,
    until_all_is_delivered,
    values,
    write,
)
from tests.receiver import Received, Receiver
from tests.servers import Servers
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

KILLS = 4


class KilledStream:
    """A real `triggerkit stream`, killed and started again."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {**clean_environment(), **environment}
        self._process: asyncio.subprocess.Process | None = None
        self.kills = 0

    async def start(self) -> None:
        """Start it; it is ready at some time."""
        with (self._folder / "stream.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "triggerkit", "stream",
                cwd=self._folder, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    async def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def test_a_copy_is_the_table_though_the_stream_dies_at_truncates(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    """Before the receiver applied one, and after."""
    copy = Copy()

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            stream = KilledStream(
                tmp_path,
                {
                    "DATABASE_URL": settings.source_dsn,
                    "REDIS_URL": servers.redis.url,
                    "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the fault tests",
                    "TRIGGERKIT_PUBLIC_URL": receiver.url,
                },
            )

            async def kill_at_a_truncate(received: Received) -> Response:
                is_killed = values([received]) == [""] and stream.kills < KILLS
                if is_killed:
                    stream.kills += 1
                    if stream.kills % 2:
                        copy.apply(received.messages)
                    await stream.kill()
                    await stream.start()
                else:
                    copy.apply(received.messages)
                return JSONResponse({})

            receiver.answer = kill_at_a_truncate
            await execute(settings, ITEMS, OTHERS)
            await declare(settings, receiver, changes("items", "others", batch_size=5))
            await stream.start()
            try:
                await write(settings, ["items", "others"], 1)
                await write(settings, ["items", "others"], 2)
                await until_all_is_delivered(settings)
            finally:
                await stream.kill()
            assert stream.kills == KILLS
            assert copy.tables == await rows(settings, copy.tables)

    asyncio.run(scenario())


TASKS = """
from typing import Any
from triggerkit import Change, task

@task
def take_batch(batch: list[Change[dict[str, Any]]]) -> None: ...
"""


@pytest.mark.timeout(240)
def test_runs_made_directly_are_in_the_order_of_the_table_though_the_stream_dies(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    """Each is made once, before a truncate or behind it."""
    (tmp_path / "tasks.py").write_text(TASKS)
    stream = KilledStream(
        tmp_path,
        {
            "DATABASE_URL": settings.source_dsn,
            "REDIS_URL": servers.redis.url,
            "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the fault tests",
        },
    )
    tables = ["items", "others"]

    async def scenario() -> None:
        await execute(settings, ITEMS, OTHERS)
        await ways.declare(settings, "direct", changes(*tables, batch_size=5))
        for seed in range(3):
            await write(settings, tables, seed)
        await stream.start()
        try:
            for number in range(KILLS // 2):
                # In the midst of what was written, wherever that is.
                made = "SELECT count(*) FROM triggerkit.runs WHERE finished_at IS NULL"
                await until(settings, made, at_least(15 * (number + 1)))
                await stream.kill()
                await stream.start()
                await write(settings, tables, 3 + number, 10)
            await until_all_is_delivered(settings)
        finally:
            await stream.kill()
        messages = [m for run in await ways.made(settings) for m in run.messages]
        keys = [m["metadata"]["idempotency_key"] for m in messages]
        assert len(keys) == len({*keys})
        copy = Copy()
        copy.apply(messages)
        assert copy.truncates > KILLS
        assert copy.tables == await rows(settings, tables)

    asyncio.run(scenario())


def at_least(count: int) -> Callable[[list[tuple[Any, ...]]], bool]:
    return lambda found: found[0][0] >= count
