"""Begin and end every long-running process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from triggerkit import failpoints, lifeline
from triggerkit.settings import Settings
from triggerkit.supervisor.logs import announce, configure, is_child


def start(*, host: str | None = None, port: int | None = None) -> Settings:
    """Watch the parent, set up logging and read the settings; `host` and `port` win over them."""
    lifeline.watch()
    settings = prepare()
    changed: dict[str, Any] = {}
    if host is not None:
        changed["triggerkit_host"] = host
    if port is not None:
        changed["triggerkit_port"] = port
    return settings.model_copy(update=changed)


def prepare() -> Settings:
    """`start` for a process that is going to fork: nothing here makes a thread."""
    failpoints.arm(os.environ)
    configure(json_lines=is_child())
    return Settings.load(Path.cwd())


def ready() -> None:
    """Tell that this process works from here on."""
    # What was imported stays: no collection needs to look at it again.
    gc.freeze()
    announce("ready")


async def until_signal(work: Coroutine[Any, Any, None], asked: Callable[[], None]) -> None:
    """Run `work` until it ends or a signal cancels it; `asked` is called at a signal. A second one
    cancels what `work` does at its end, too."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        asked()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task
