"""The project's logging is the project's: whatever it does to it, our own lines are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.small import TASK, SmallProject
from tests.acceptance.test_worker_command import said, worker
from tests.integration.run_state import RunState, new_run
from triggerkit.settings import Settings

#: What people write at the top of their modules.
SETUPS = {
    "dictConfig": "logging.config.dictConfig({'version': 1})",
    "dictConfig of ours": (
        "logging.config.dictConfig({'version': 1, 'loggers': {'triggerkit': {'level': 'CRITICAL'},"
        " '': {'level': 'CRITICAL', 'handlers': []}}})"
    ),
    "basicConfig": "logging.basicConfig(force=True, level=logging.CRITICAL, handlers=[])",
    "disable": "logging.disable(logging.CRITICAL)",
    "handlers.clear": "logging.getLogger().handlers.clear()",
    "levels": (
        "logging.getLogger('triggerkit').setLevel(99); logging.getLogger().setLevel(99);"
        "logging.addLevelName(20, 'Information'); logging.addLevelName(30, 'Warn')"
    ),
    "all loggers": (
        "[logger.handlers.clear() or setattr(logger, 'disabled', True) or logger.setLevel(99)"
        " for logger in map(logging.getLogger, list(logging.root.manager.loggerDict))]"
    ),
}

FAILING = """
from typing import Any
from triggerkit import task, Change

@task(retry=1)
def note(payload: dict[str, Any]) -> None:
    raise ValueError("no such shop")
"""


def with_setup(setup: str, code: str) -> str:
    return f"import logging, logging.config\n{setup}\n{code}"


@pytest.mark.parametrize("name", ["dictConfig", "disable", "all loggers"])
def test_dev_is_ready_and_tells_of_runs(tmp_path: Path, name: str) -> None:
    project = SmallProject(tmp_path)
    code = with_setup(SETUPS[name], TASK.replace("{version}", "first"))
    (tmp_path / "tasks" / "note.py").write_text(code)
    project.dev.start(30)
    try:
        assert project.output_of_new_row() == "first"
        eventually(lambda: project.events("run", status="completed"), 10, "a line of the run")
    finally:
        assert project.dev.interrupt() == 0


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS.keys())
def test_a_worker_tells_of_a_failing_run_what_where_and_of_which_row(
    tmp_path: Path, state: RunState, settings: Settings, setup: str
) -> None:
    source: dict[str, Any] = {"key": 'public.shops:["7"]'}
    with worker(tmp_path, settings, code=with_setup(setup, FAILING)):
        state.accept(run := new_run(task="note", payload=b"{}", source=source))
        state.wait_for_status("failed", run.id)
        eventually(lambda: "failed in" in said(tmp_path), 10, "a line of the run")
    [line] = [line for line in said(tmp_path).splitlines() if "failed in" in line]
    assert f"note {run.id} failed in" in line
    assert "ValueError: no such shop" in line
    assert f"{tmp_path}/tasks.py:" in line
    assert 'public.shops:["7"]' in line


def test_what_runs_log_is_noted_though_the_handlers_were_taken_away(
    tmp_path: Path, state: RunState, settings: Settings
) -> None:
    code = with_setup(
        SETUPS["handlers.clear"],
        FAILING.replace("    raise", "    logging.getLogger('mine').warning('a line')\n    raise"),
    )
    with worker(tmp_path, settings, code=code):
        state.accept(run := new_run(task="note", payload=b"{}"))
        state.wait_for_status("failed", run.id)
        lines = "SELECT name FROM triggerkit.spans WHERE run_id = %s"
        state.wait_for(lambda: "a line" in state.rows(lines, run.id))
