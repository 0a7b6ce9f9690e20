"""Calls the hooks of a task around its attempts; one that fails is logged and ignored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from triggerkit.errors import text_of
from triggerkit.tasks.context import RunContext
from triggerkit.tasks.hooks import Hooks
from triggerkit.worker.attempt import Stopped

logger = logging.getLogger("triggerkit.hooks")

#: Calls a function of the project's, sync or async, and returns what it returns.
Invoke = Callable[..., Awaitable[Any]]

At = Literal["start", "success", "failure", "cancel", "error"]


async def call_hooks(
    hooks: Hooks, at: At, invoke: Invoke, context: RunContext, *arguments: Any
) -> list[Any]:
    """Call the hooks `at` with the run and `arguments`, and return what they returned."""
    answers = []
    for hook in getattr(hooks, at):
        try:
            answers.append(await invoke(hook, context, *arguments))
        except (Stopped, asyncio.CancelledError):
            raise
        except BaseException as error:
            _tell(at, context, error)
    return answers


def _tell(at: At, context: RunContext, error: BaseException) -> None:
    # What handlers of the project's raise is no concern of the run's.
    with contextlib.suppress(Exception, SystemExit):
        logger.exception("the %s hook of %s failed; it is ignored", at, context.task)
    context.log(f"the {at} hook failed: {type(error).__name__}: {text_of(error)}", "error")
