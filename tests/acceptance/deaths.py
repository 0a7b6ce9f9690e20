"""A project whose tasks do harm to their process, worked on by the real command `worker`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.project import clean_environment, eventually
from tests.integration.run_state import RunState, new_run

TASKS = """
import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from triggerkit import Queue, task

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)

@task
def exits() -> None:
    os._exit(7)

@task
def killed(folder: dict[str, str]) -> str:
    pids = Path(folder["path"], "killed.pids")
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while len(pids.read_text().split()) < 2:
        time.sleep(0.01)
    return "done"

@task
def forks() -> str:
    if os.fork() == 0:
        return "the child"
    os.wait()
    return "the parent"

@task(max_duration=30)
def ends_its_children() -> list[int]:
    children = [multiprocessing.get_context("fork").Process(target=signal.pause) for _ in range(20)]
    for child in children:
        child.start()
        child.terminate()
        child.join()
    return [child.exitcode for child in children]

@task(max_duration=30)
def reads_its_input() -> list[str]:
    of_a_program = subprocess.run(["cat"], stdout=subprocess.PIPE, text=True).stdout
    return [sys.stdin.read(), of_a_program]

@task(retry=1)
def changes_handlers() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

@task(max_duration=0.5)
def sleeps() -> None:
    time.sleep(60)

@task
def waits(given: dict[str, str]) -> str:
    while not Path(given["gate"]).exists():
        time.sleep(0.01)
    return "done"

@task
def adds(given: dict[str, int]) -> int:
    print("adding", given["a"])
    return given["a"] + 1
"""


class WorkerCommand:
    """`triggerkit worker` of the project in `folder`."""

    def __init__(self, folder: Path, state: RunState, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.state = state
        self._environment = {
            **clean_environment(),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
        }
        self._process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        (folder / "harmful.py").write_text(TASKS)
        (folder / "triggerkit.toml").write_text('tasks = ["harmful"]\n')

    def start(self, *options: str) -> None:
        """Start it; runs wait until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", "worker", *options],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self._process is not None
        return self._process.pid

    def ask_to_end(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended; the exit code."""
        assert self._process is not None
        return self._process.wait(30)

    def stop(self) -> int:
        """Ask it to end; the exit code."""
        self.ask_to_end()
        return self.wait()

    def close(self) -> None:
        """Make sure that it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def trigger(self, task: str, payload: Any = None, **given: Any) -> str:
        """Make a run; its id."""
        run = new_run(task=task, payload=orjson.dumps(payload), **given)
        self.state.accept(run)
        return run.id

    def wait_for(self, status: str, *run_ids: str) -> list[dict[str, Any]]:
        """Wait until all have the status; their rows."""
        query = "SELECT status FROM triggerkit.runs WHERE id = ANY (%s)"
        eventually(
            lambda: set(self.state.rows(query, list(run_ids))) == {status},
            60,
            lambda: f"{status}: {self.state.statuses()}\n{''.join(self.lines)}",
        )
        return [self.state.run(run_id) for run_id in run_ids]

    def said(self, text: str) -> bool:
        """Whether a line has `text`."""
        return any(text in line for line in self.lines)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
