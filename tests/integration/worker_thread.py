"""A worker in threads of the test's own process: lease, keeper and execution."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from tests.integration.run_state import RunState, run_state
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.settings import Settings
from triggerkit.supervisor.worker import keep
from triggerkit.tasks.task import Task
from triggerkit.worker.process import Worker, WorkerConfig, execute_runs, new_worker_id


class Row(BaseModel):
    """A row as the tests' tasks get it."""

    id: int
    text: str = ""


class Order(BaseModel):
    """A payload of a task's own, about no row."""

    number: int


def message(row_id: int, text: str = "", position: int | None = None) -> dict[str, Any]:
    """A message about a row, as it arrives."""
    metadata = {
        "table_schema": "public",
        "table_name": "posts",
        "record_pks": [str(row_id)],
        "position": position,
    }
    record = {"id": row_id, "text": text}
    return {"record": record, "changes": None, "action": "insert", "metadata": metadata}


def row_key(row_id: int) -> str:
    """What the runs of the row's items have as item key."""
    return f'public.posts:["{row_id}"]'


@contextmanager
def executing(
    settings: Settings,
    namespace: str,
    *tasks: Task[Any, Any, Any],
    threads: int = 4,
    async_runs: int = 20,
    worker_id: str = "worker-1",
) -> Iterator[Worker]:
    """Execute runs of `tasks`, without lease and keeper; on leaving, drain."""
    with run_state(settings) as state, state.claims(worker_id):
        pass  # it has a lease now
    stop, ready = threading.Event(), threading.Event()
    started: list[Worker] = []

    def is_ready(worker: Worker) -> None:
        started.append(worker)
        ready.set()

    thread = threading.Thread(
        target=execute_runs,
        args=[
            settings,
            {task.name: task for task in tasks},
            WorkerConfig(worker_id, namespace, threads, async_runs),
        ],
        kwargs={"ready": is_ready, "stop": stop},
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join()


@contextmanager
def working(
    state: RunState, *tasks: Task[Any, Any, Any], threads: int = 4, async_runs: int = 20
) -> Iterator[Worker]:
    """A whole worker."""
    stop = threading.Event()
    worker_id = new_worker_id()
    processes = ExecutingProcesses()
    workers: list[Worker] = []

    def cancel(run_id: str) -> None:
        workers[0].cancel(run_id)

    processes.join(ExecutingProcess(worker_id, os.getpid(), [], threads, async_runs, cancel))
    keeping = keep(state.settings, state.namespace, processes, stop)
    assert processes.wait_until_held(worker_id, 10)
    try:
        with executing(
            state.settings,
            state.namespace,
            *tasks,
            threads=threads,
            async_runs=async_runs,
            worker_id=worker_id,
        ) as worker:
            workers.append(worker)
            yield worker
    finally:
        stop.set()
        processes.wake()
        keeping.join()
