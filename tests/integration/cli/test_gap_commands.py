"""`triggerkit consumers show` and `accept-gap` as one types them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tests.acceptance.project import run_command
from tests.integration.pipeline import declare, execute
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings


def test_a_gap_is_shown_and_accepted(settings: Settings, tmp_path: Path) -> None:
    table = "CREATE TABLE items (id bigint PRIMARY KEY)"

    async def lose() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, table)
            await declare(settings, receiver, changes("items"))
            await execute(settings, "DROP TABLE items", table)
            await declare(settings, receiver, changes("items"))

    def run(*arguments: str) -> tuple[int, str]:
        environment = settings.environment()
        done = run_command(tmp_path, "triggerkit", "consumers", *arguments, settings=environment)
        return done.returncode, done.stdout + done.stderr

    asyncio.run(lose())
    code, shown = run("show", "test")
    assert code == 0
    assert "gap              public.items: the table that was public.items was dropped" in shown
    assert re.search(r"\(from [0-9A-F]+/[0-9A-F]+, until [0-9A-F]+/[0-9A-F]+\)", shown)
    assert "mend it with: triggerkit backfill start test --table public.items" in shown
    assert run("accept-gap", "test", "--table", "items") == (0, "closed 1 gap of test\n")
    code, shown = run("show", "test")
    assert "gap" not in shown
    code, told = run("accept-gap", "test")
    assert code != 0
    assert "consumer test has no open gap" in told
