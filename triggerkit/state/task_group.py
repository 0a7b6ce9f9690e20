"""Starts tasks in an `asyncio.TaskGroup` that may be ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_in(
    group: asyncio.TaskGroup, work: Callable[[], Coroutine[Any, Any, T]], name: str
) -> asyncio.Task[T]:
    """Start `work` as a task of `group`, and return it.

    Raises:
        asyncio.CancelledError: the group is ending: it takes no tasks any more. Whoever works
            for the group beside it (called from another thread) ends as its tasks do.
    """
    coroutine = work()
    try:
        return group.create_task(coroutine, name=name)
    except RuntimeError:
        coroutine.close()
        raise asyncio.CancelledError(f"{name}: its group is ending") from None
