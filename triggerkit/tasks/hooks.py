"""Functions that a task has called around its attempts; one that fails is told of and ignored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from triggerkit.tasks.context import RunContext
from triggerkit.worker.attempt import Stopped
from triggerkit.worker.failure import message_of

logger = logging.getLogger("triggerkit.hooks")

HookT = TypeVar("HookT", bound=Callable[..., Any])

#: Calls a function of the project's, sync or async, and returns what it returns.
Invoke = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Hooks:
    """The hooks of one task, by what they are called at."""

    start: list[Callable[..., Any]] = field(default_factory=list)
    success: list[Callable[..., Any]] = field(default_factory=list)
    failure: list[Callable[..., Any]] = field(default_factory=list)
    cancel: list[Callable[..., Any]] = field(default_factory=list)
    error: list[Callable[..., Any]] = field(default_factory=list)

    async def call(self, at: str, invoke: Invoke, context: RunContext, *given: Any) -> list[Any]:
        """Call the hooks `at` with the run and `given`; what they returned."""
        answers = []
        for hook in getattr(self, at):
            try:
                answers.append(await invoke(hook, context, *given))
            except (Stopped, asyncio.CancelledError):
                raise
            except BaseException as error:
                logger.exception("the %s hook of %s failed; it is ignored", at, context.task)
                context.log(
                    f"the {at} hook failed: {type(error).__name__}: {message_of(error)}", "error"
                )
        return answers


class HookDecorators:
    """What a task offers to declare its hooks."""

    hooks: Hooks

    def on_start(self, hook: HookT) -> HookT:
        """Call `hook(run)` before each attempt."""
        self.hooks.start.append(hook)
        return hook

    def on_success(self, hook: HookT) -> HookT:
        """Call `hook(run, output)` once the task has returned."""
        self.hooks.success.append(hook)
        return hook

    def on_failure(self, hook: HookT) -> HookT:
        """Call `hook(run, error)` when no attempt is left, or none can help."""
        self.hooks.failure.append(hook)
        return hook

    def on_cancel(self, hook: HookT) -> HookT:
        """Call `hook(run)` when an attempt is canceled."""
        self.hooks.cancel.append(hook)
        return hook

    def on_error(self, hook: HookT) -> HookT:
        """Call `hook(run, error)` after each attempt that failed. It may decide: by returning
        `AbortRun(…)` the run fails now, by `RetryAfter(seconds)` it is tried again then."""
        self.hooks.error.append(hook)
        return hook
