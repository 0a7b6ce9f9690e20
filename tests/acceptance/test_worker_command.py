"""`triggerkit worker` by itself: its processes, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.acceptance.project import clean_environment, eventually
from tests.integration.run_state import RunState, new_run
from triggerkit.runs.run import NewRun
from triggerkit.settings import Settings

#: Its runs wait for the file `gate`, if they are told to, after they have told their process.
TASKS = """
import os
import time
from pathlib import Path
from typing import Any
from triggerkit import task

@task
def note(payload: dict[str, Any]) -> int:
    if payload["waits"]:
        Path(f"begun.{os.getpid()}").touch()
        while not Path("gate").exists():
            time.sleep(0.01)
    return os.getpid()
"""


@contextmanager
def worker(
    folder: Path, settings: Settings, *options: str, code: str = TASKS, begun: str = "ready"
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a project of one module of tasks, once it is ready, or has said `begun`."""
    (folder / "tasks.py").write_text(code)
    (folder / "triggerkit.toml").write_text('tasks = ["tasks"]\n')
    with (folder / "worker.log").open("wb") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", "worker", *options],
            cwd=folder,
            env={**clean_environment(), **settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: begun in said(folder), 30, "a worker that has begun")
        yield command
    finally:
        command.kill()
        command.wait()


def said(folder: Path) -> str:
    return (folder / "worker.log").read_text()


def note(*, waits: bool) -> NewRun:
    return new_run(task="note", payload=orjson.dumps({"waits": waits}))


def output(row: dict[str, Any]) -> Any:
    return orjson.loads(row["output"])


def test_asked_to_end_it_finishes_what_it_has_and_says_nothing_more(
    tmp_path: Path, settings: Settings, state: RunState
) -> None:
    run = note(waits=True)
    with worker(tmp_path, settings, "--processes", "2") as command:
        state.accept(run)
        eventually(lambda: list(tmp_path.glob("begun.*")), 20, "the run's begin")
        command.send_signal(signal.SIGTERM)
        (tmp_path / "gate").touch()
        assert command.wait(20) == 0, said(tmp_path)
    assert state.run(run.id)["status"] == "completed"
    assert state.rows("SELECT id FROM triggerkit.workers") == []
    assert "Fatal" not in said(tmp_path)


POOL = """
import atexit
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from triggerkit import task

pool = ThreadPoolExecutor(thread_name_prefix="endless")
atexit.register(Path("at-exit").touch)

@task
def note() -> int:
    pool.submit(threading.Event().wait)
    return os.getpid()
"""


def test_work_of_a_tasks_own_threads_that_does_not_end_does_not_hold_its_end(
    tmp_path: Path, settings: Settings, state: RunState
) -> None:
    run = new_run(task="note")
    with worker(tmp_path, settings, code=POOL) as command:
        state.accept(run)
        state.wait_for_status("completed", run.id)
        command.send_signal(signal.SIGTERM)
        assert command.wait(20) == 0, said(tmp_path)
    assert "threads of the project's do not end; leaving without them: endless_0" in said(tmp_path)
    assert (tmp_path / "at-exit").exists()
    assert state.rows("SELECT id FROM triggerkit.workers") == []


def test_an_exit_function_that_does_not_end_does_not_hold_its_end(
    tmp_path: Path, settings: Settings, state: RunState
) -> None:
    code = f"{TASKS}\nimport atexit\nimport threading\natexit.register(threading.Event().wait)\n"
    with worker(tmp_path, settings, code=code) as command:
        command.send_signal(signal.SIGTERM)
        assert command.wait(20) == 0, said(tmp_path)
    assert state.rows("SELECT id FROM triggerkit.workers") == []


HANGING_STARTS = {
    "import": "import threading\nprint('it hangs', flush=True)\nthreading.Event().wait()\n",
    "prepare": """
import asyncio
from triggerkit import task

async def prepare() -> None:
    print("it hangs", flush=True)
    await asyncio.Event().wait()

@task(prepare=prepare)
async def note() -> None: ...
""",
}


@pytest.mark.parametrize("code", HANGING_STARTS.values(), ids=HANGING_STARTS.keys())
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_hangs_is_ended_by_one_signal(
    tmp_path: Path, settings: Settings, code: str, number: signal.Signals
) -> None:
    with worker(tmp_path, settings, code=code, begun="it hangs") as command:
        command.send_signal(number)
        assert command.wait(20) == 0, said(tmp_path)
    assert "Traceback" not in said(tmp_path)


def test_a_process_that_dies_is_replaced_and_its_runs_go_to_the_others(
    tmp_path: Path, settings: Settings, state: RunState
) -> None:
    run, later = note(waits=True), note(waits=False)
    with worker(tmp_path, settings, "--processes", "2") as command:
        processes = "SELECT pid FROM triggerkit.workers ORDER BY pid"
        before = set(state.rows(processes))
        assert len(before) == 2
        state.accept(run)
        [begun] = eventually(lambda: list(tmp_path.glob("begun.*")), 20, "the run's begin")
        died = int(begun.suffix[1:])
        os.kill(died, signal.SIGKILL)
        (tmp_path / "gate").touch()
        [row] = state.wait_for_status("completed", run.id)
        assert (row["attempt"], row["crashes"]) == (2, 1)
        assert output(row) != died
        state.wait_for(lambda: len(set(state.rows(processes)) - before) == 1)
        assert died not in state.rows(processes)
        state.accept(later)
        state.wait_for_status("completed", later.id)
        command.send_signal(signal.SIGTERM)
        assert command.wait(20) == 0, said(tmp_path)


def test_a_queue_that_no_task_has_is_told(tmp_path: Path, settings: Settings) -> None:
    with worker(tmp_path, settings, "--queue", "defult"):
        assert "no queue is named 'defult'; did you mean default?" in said(tmp_path)
