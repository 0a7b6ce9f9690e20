"""The problems behind the endpoint, each with its remedy: tasks, queues, workers, schedules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from triggerkit.consumers.health import Problem
from triggerkit.runs.admin.health import FailedSchedule, FailingTask, RunHealth, StandingTask
from triggerkit.runs.admin.queues import QueueInfo
from triggerkit.runs.admin.workers import WorkerInfo

#: A ready run that waits for longer says something even where a worker has its task.
LONG = timedelta(seconds=60)

Shown = dict[str, Any]


def shown_runs(health: RunHealth, workers: Sequence[WorkerInfo]) -> dict[str, list[Shown]]:
    """Return what `status` shows of runs and workers, each with its problems."""
    alive = [worker for worker in workers if worker.alive is not False]
    ready: defaultdict[str, list[StandingTask]] = defaultdict(list)
    for task in health.ready:
        ready[task.queue].append(task)
    return {
        "failing": [_with(task, [_of_failing(task)]) for task in health.failing],
        "queues": [
            _with(queue, _of_queue(queue, ready[queue.name], alive)) for queue in health.queues
        ],
        "workers": [_with(worker, _of_worker(worker)) for worker in workers],
        "schedules": [_with(failed, [_of_schedule(failed)]) for failed in health.schedules],
    }


def _with(found: Any, problems: Sequence[Problem] | Iterator[Problem]) -> Shown:
    return {**_values(found), "problems": [_values(problem) for problem in problems]}


def _values(found: Any) -> Shown:
    """Return the fields of what has no others within: of hundreds, `asdict` takes milliseconds."""
    return {name: getattr(found, name) for name in found.__slots__}


def _of_failing(task: FailingTask) -> Problem:
    where = "" if task.place is None else f", at {task.place}"
    counts = []
    if task.failed:
        counts.append(f"{_runs(task.failed)} failed")
    if task.retrying:
        again = "" if task.next_at is None else f", next at {task.next_at:%H:%M:%S} UTC"
        counts.append(f"{_runs(task.retrying)} tried again{again}")
    detail = f"{' and '.join(counts)} since {_at(task.since)}: {task.error}{where}"
    once = "" if task.place is None else f"  # once {task.place.partition(' in ')[0]} is mended"
    if not task.failed:
        return Problem("run_retrying", "warning", detail, f"triggerkit why {task.run}")
    if task.failed == 1 and not task.retrying:
        return Problem("run_failed", "error", detail, f"triggerkit runs replay {task.run}{once}")
    remedy = f"triggerkit runs replay --task {task.task} --error {task.type} --status failed --yes"
    return Problem("run_failed", "error", detail, f"{remedy}{once}")


def _of_queue(
    queue: QueueInfo, ready: Sequence[StandingTask], alive: Sequence[WorkerInfo]
) -> Iterator[Problem]:
    if queue.paused_at is not None:
        detail = f"paused since {_at(queue.paused_at)}: {_runs(queue.held + queue.queued)} wait"
        yield Problem("queue_paused", "warning", detail, f"triggerkit queues resume {queue.name}")
        return
    for task in ready:
        if not any(not worker.tasks or task.task in worker.tasks for worker in alive):
            who = "no worker is running" if not alive else f"none of {len(alive)} workers has it"
            detail = f"runs of {task.task} wait since {_at(task.since)}, and {who}"
            remedy = f"triggerkit worker --queue {queue.name}" if alive else "triggerkit worker"
            yield Problem("queue_without_worker", "error", detail, remedy)
        elif datetime.now(UTC) - task.since > LONG:
            detail = f"a run of {task.task} waits since {_at(task.since)}"
            yield Problem("queue_waits", "warning", detail, f"triggerkit why {task.run}")


def _of_worker(worker: WorkerInfo) -> Iterator[Problem]:
    if worker.alive is False:
        detail = (
            f"the worker of pid {worker.pid} on {worker.hostname} is silent: "
            f"{_runs(worker.executing)} of it go to others once another one runs"
        )
        yield Problem("worker_silent", "error", detail, "triggerkit worker")


def _of_schedule(failed: FailedSchedule) -> Problem:
    detail = f"its last run {failed.status} at {_at(failed.at)}: {failed.error}"
    return Problem("schedule_failed", "error", detail, f"triggerkit runs replay {failed.run}")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
