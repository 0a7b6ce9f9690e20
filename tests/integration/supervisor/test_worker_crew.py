"""The processes of a worker: one that died is replaced, however often that fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from triggerkit.project import Project
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.supervisor import crew as crews
from triggerkit.supervisor.crew import Crew, Sizes


def test_a_process_that_cannot_be_started_is_started_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crews, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(crews, "LONGEST_WAIT_S", 0.02)
    processes, refused, started = ExecutingProcesses(), list[int](), list[int]()
    again = threading.Event()

    def ends_at_once(*_: object, **given: object) -> subprocess.Popen[bytes]:
        if started and len(refused) < 3:
            refused.append(1)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        started.append(1)
        if len(started) > 1:
            again.set()
        return real([sys.executable, "-c", "pass"], stdin=subprocess.DEVNULL)

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", ends_at_once)
    # With a second thread, processes are spawned and not forked.
    idle = threading.Event()
    beside = threading.Thread(target=idle.wait)
    beside.start()
    crew = Crew(Project(tmp_path, tasks=("tasks",)), Sizes(1, 1, 1), processes)
    before = _open_fds()
    try:
        crew.start()
        crew.join()
        crew.watch()
        assert again.wait(20)
    finally:
        crew.stop()
        idle.set()
        beside.join()
    assert len(refused) == 3
    assert caplog.text.count("no process can be started") == 3
    # Three of each process that was started, of which there may be one more by now; a start that
    # is refused would leave six.
    assert _open_fds() - before <= 12


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
