"""A worker in threads of the test's own process: lease, keeper and execution."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from tests.integration.run_state import RunState
from triggerkit.settings import Settings
from triggerkit.worker.process import Lease, execute_runs, keep, new_worker_id
from triggerkit.worker.task import Task


class Row(BaseModel):
    """A row as the tests' tasks get it."""

    id: int
    text: str = ""


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
    *tasks: Task[Any, Any],
    threads: int = 4,
    worker_id: str = "worker-1",
) -> Iterator[None]:
    """Execute runs of `tasks`, without lease and keeper; on leaving, drain."""
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=execute_runs,
        args=[settings, {task.name: task for task in tasks}],
        kwargs={
            "worker_id": worker_id,
            "namespace": namespace,
            "queues": sorted({task.queue for task in tasks}),
            "threads": threads,
            "ready": ready.set,
            "stop": stop,
        },
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def working(state: RunState, *tasks: Task[Any, Any], threads: int = 4) -> Iterator[None]:
    """A whole worker."""
    stop = threading.Event()
    worker_id = new_worker_id()
    lease = Lease(state.settings, worker_id, ["default"], threads)
    kept = keep(state.settings, state.namespace, lease, stop)
    assert lease.held.wait(10)
    try:
        with executing(
            state.settings, state.namespace, *tasks, threads=threads, worker_id=worker_id
        ):
            yield
    finally:
        stop.set()
        for thread in kept:
            thread.join()
