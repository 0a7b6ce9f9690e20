"""Hooks: functions that a task has called around its attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from triggerkit.tasks.context import RunContext

#: Called with the run; also with its output, or with the error. Each may be async.
RunHookT = TypeVar("RunHookT", bound=Callable[[RunContext], object])
OutputHookT = TypeVar("OutputHookT", bound=Callable[[RunContext, Any], object])
ErrorHookT = TypeVar("ErrorHookT", bound=Callable[[RunContext, BaseException], object])


@dataclass(slots=True)
class Hooks:
    """The hooks of one task, by what they are called at."""

    start: list[Callable[..., Any]] = field(default_factory=list)
    success: list[Callable[..., Any]] = field(default_factory=list)
    failure: list[Callable[..., Any]] = field(default_factory=list)
    cancel: list[Callable[..., Any]] = field(default_factory=list)
    error: list[Callable[..., Any]] = field(default_factory=list)

    @property
    def any_at_end(self) -> bool:
        """Return whether anything is called after the task's code."""
        return bool(self.success or self.failure or self.cancel or self.error)


class HookDecorators:
    """Decorators by which a task declares its hooks."""

    hooks: Hooks

    def on_start(self, hook: RunHookT) -> RunHookT:
        """Call `hook(run)` before each attempt."""
        self.hooks.start.append(hook)
        return hook

    def on_success(self, hook: OutputHookT) -> OutputHookT:
        """Call `hook(run, output)` once the task has returned."""
        self.hooks.success.append(hook)
        return hook

    def on_failure(self, hook: ErrorHookT) -> ErrorHookT:
        """Call `hook(run, error)` when no attempt is left, or none can help."""
        self.hooks.failure.append(hook)
        return hook

    def on_cancel(self, hook: RunHookT) -> RunHookT:
        """Call `hook(run)` when an attempt is canceled."""
        self.hooks.cancel.append(hook)
        return hook

    def on_error(self, hook: ErrorHookT) -> ErrorHookT:
        """Call `hook(run, error)` after each attempt that failed. It may decide: by returning
        `AbortRun(…)` the run fails now, by `RetryAfter(seconds)` it is tried again then."""
        self.hooks.error.append(hook)
        return hook
