"""`--version`, `psql` and `completion`, as typed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.acceptance.project import run_command
from tests.acceptance.terminal import Terminal
from tests.acceptance.test_errors import assert_refused


def test_the_version_is_printed(tmp_path: Path) -> None:
    printed = run_command(tmp_path, "triggerkit", "--version")
    assert (printed.returncode, printed.stdout) == (0, f"triggerkit {version('triggerkit')}\n")


def test_psql_opens_the_projects_database_and_takes_its_own_options(
    tmp_path: Path, database_url: str
) -> None:
    settings = {"DATABASE_URL": f"{database_url}&password=hunter2"}
    told = run_command(
        tmp_path, "triggerkit", "psql", "-XAtc", "select 1 + 1", "-v", "a=b", settings=settings
    )
    assert (told.returncode, told.stdout) == (0, "2\n"), told.stderr


def test_psqls_password_is_on_no_command_line(tmp_path: Path) -> None:
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$@"; echo "$PGPASSWORD"\n')
    program.chmod(0o755)
    settings = {
        "DATABASE_URL": "postgresql://u:hunter2@127.0.0.1/d",
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }
    told = run_command(tmp_path, "triggerkit", "psql", settings=settings).stdout.splitlines()
    assert "hunter2" not in told[0]
    assert told[1] == "hunter2"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shells_completion_is_printed(tmp_path: Path, shell: str) -> None:
    printed = run_command(tmp_path, "triggerkit", "completion", shell)
    assert printed.returncode == 0
    assert "_TRIGGERKIT_COMPLETE" in printed.stdout


def test_an_unknown_shell_is_told_with_the_known_ones(tmp_path: Path) -> None:
    assert_refused(run_command(tmp_path, "triggerkit", "completion", "tcsh"), 2, "bash, zsh, fish")


def test_commands_are_completed(tmp_path: Path) -> None:
    settings = {
        "_TRIGGERKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": "triggerkit run",
        "COMP_CWORD": "1",
    }
    # The name that a shell calls it by.
    completed = subprocess.run(
        [Path(sys.executable).parent / "triggerkit"],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.stdout.split() == ["runs"], completed.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "--help"], ["nonsense"], ["tasks"]])
def test_no_color_leaves_no_escape_on_a_terminal(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "tasks.py").touch()
    terminal = Terminal(tmp_path, "triggerkit", *arguments, settings={"NO_COLOR": "1"})
    try:
        terminal.wait()
        assert terminal.shown
        assert "\x1b" not in terminal.shown
    finally:
        terminal.close()
