"""Schedules of runs in memory: a run for each tick that the clock has passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import NewRun
from triggerkit.runs.schedules import Tick, for_tick, key_of_tick
from triggerkit.tasks.task import Task


@dataclass(slots=True)
class _Schedule:
    task: Task[Any, Any, Any]
    ticks: Iterator[datetime]
    next_at: datetime
    last_at: datetime | None = None


class Schedules:
    """The schedules that have been started."""

    def __init__(self) -> None:
        self._started: list[_Schedule] = []

    def start(self, task: Task[Any, Any, Any], now: datetime) -> None:
        """Have `task` run by its schedule, from `now` on.

        Raises:
            ConfigurationError: it has none.
        """
        if task.schedule is None:
            raise ConfigurationError(
                f"{task.name} has no schedule, such as @task(schedule='0 6 * * *')"
            )
        ticks = task.schedule.after(now)
        self._started.append(_Schedule(task, ticks, next(ticks)))

    def next_at(self) -> datetime | None:
        """Return the next tick."""
        return min((schedule.next_at for schedule in self._started), default=None)

    def due(self, now: datetime) -> Iterator[NewRun]:
        """Yield the runs of all ticks until `now`, each once, in order."""
        while (at := self.next_at()) is not None and at <= now:
            for schedule in self._started:
                if schedule.next_at == at:
                    yield _run(schedule.task, at, schedule.last_at)
                    schedule.last_at, schedule.next_at = at, next(schedule.ticks)


def _run(task: Task[Any, Any, Any], at: datetime, last_at: datetime | None) -> NewRun:
    run = for_tick(task.run_of(b"null"), Tick(task.name, at, last_at))
    return replace(run, idempotency_key=key_of_tick(task.name, at))
