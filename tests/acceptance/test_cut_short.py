"""Commands that are cut short, by Ctrl-C or by a reader that has enough, say nothing of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.project import clean_environment


@pytest.mark.parametrize("command", [["runs", "list"], ["check"], ["consumers", "list"]])
def test_ctrl_c_ends_a_command_that_waits_for_a_server(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "tasks.py").touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"postgresql://u:hunter2@127.0.0.1:{silent.getsockname()[1]}/d"
        waiting = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", *command],
            cwd=tmp_path,
            env={**clean_environment(), "DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            # It has sent its first message, and so waits for the answer.
            assert connection.recv(1)
            waiting.send_signal(signal.SIGINT)
            said = waiting.communicate(timeout=30)
    assert (waiting.returncode, said) == (130, ("", ""))


@pytest.mark.parametrize("command", [["sql"], ["--help"], ["completion", "bash"]])
def test_a_closed_pipe_is_no_error_to_tell_of(tmp_path: Path, command: list[str]) -> None:
    writing = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", *command],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writing.stdout is not None
    writing.stdout.close()
    assert writing.stderr is not None
    with writing.stderr:
        assert writing.stderr.read() == b""
    assert writing.wait(30) in (0, 1)
