"""A run that waits for another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from triggerkit.errors import ConfigurationError, RunFailed
from triggerkit.runs.results import End
from triggerkit.runs.run import ClaimedRun, NewRun
from triggerkit.tasks.context import RunContext, running


@contextmanager
def without_slot() -> Iterator[None]:
    """Inside of a run, its slot is for others as long as it waits: else runs that all wait for runs
    of their own would hold every slot."""
    context = running.get()
    if context is None:
        yield
        return
    context.lend_slot()
    try:
        yield
    finally:
        context.take_slot_back()


def check_not_on_loop(what: str, context: RunContext | None, instead: str) -> None:
    """Refuse a wait that would hold up the event loop on which what it waits for may execute.

    Raises:
        ConfigurationError: an async task calls this.
    """
    if context is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        f"an async task waits for {what}, and would block its event loop: use `await {instead}`"
    )


def check_wait(run: NewRun, context: RunContext | None) -> None:
    """Refuse waits that would never end.

    Raises:
        ConfigurationError: the run could start only after the one that waits for it.
    """
    if context is None:
        return
    own = context.run
    if run.concurrency_key is not None and (run.task, run.concurrency_key) == (
        own.task,
        own.concurrency_key,
    ):
        raise ConfigurationError(
            f"{own.id} would wait for a run of its own concurrency key, which waits for it; "
            "trigger it without waiting, or with another key"
        )


def running_run() -> ClaimedRun | None:
    """Return the run that executes here."""
    context = running.get()
    return None if context is None else context.run


def check_other(run_id: str, context: RunContext | None) -> None:
    """Refuse to wait for the run that waits: its key may have led back to it.

    Raises:
        ConfigurationError: it is the same run.
    """
    if context is not None and run_id == context.id:
        raise ConfigurationError(
            f"{run_id} would wait for itself: it is the run that its key or handle leads to"
        )


def output_of(end: End) -> Any:
    """Return what the run returned, as JSON has it.

    Raises:
        RunFailed: it ended without success.
    """
    if end.status != "completed":
        raise RunFailed(end.run_id, end.status, end.error)
    return None if end.output is None else orjson.loads(end.output)
