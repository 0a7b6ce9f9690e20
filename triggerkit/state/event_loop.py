"""Run coroutines on the fastest event loop that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on an event loop of this thread: uvloop's, which exists not on every platform."""
    runner = asyncio if find_spec("uvloop") is None else import_module("uvloop")
    runner.run(work)
