"""What `.env` has reaches the project's code in every command, under what the environment has."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.acceptance.project import run_command
from tests.acceptance.test_worker_command import worker
from tests.integration.run_state import RunState, new_run
from triggerkit.settings import Settings

TASKS = """
import os
from typing import Any
from triggerkit import task

KEY = os.environ["SHOP_KEY"]

@task
def note(payload: dict[str, Any]) -> str:
    return f"{KEY} {os.environ['SHOP_NAME']}"
"""


def test_a_worker_gives_it_to_tasks(tmp_path: Path, state: RunState, settings: Settings) -> None:
    (tmp_path / ".env").write_text("SHOP_KEY=from-file\nSHOP_NAME='A shop'\n")
    run = new_run(task="note", payload=b"{}")
    state.accept(run)
    with worker(tmp_path, settings, code=TASKS):
        [row] = state.wait_for_status("completed", run.id)
    assert orjson.loads(row["output"]) == "from-file A shop"


@pytest.mark.parametrize("given", [{}, {"SHOP_KEY": ""}, {"SHOP_KEY": "mine"}])
def test_a_command_that_imports_the_tasks_gives_it_to_them(
    tmp_path: Path, given: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text("SHOP_KEY=from-file\nTRIGGERKIT_TASKS=jobs\n")
    (tmp_path / "jobs.py").write_text(TASKS + "print(KEY)\n")
    listed = run_command(tmp_path, "triggerkit", "tasks", settings=given)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith(given.get("SHOP_KEY") or "from-file")
