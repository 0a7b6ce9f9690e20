"""Starting in odd surroundings: it works, or one clear line says why it does not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.acceptance.project import DevProcess, eventually, run_command
from tests.acceptance.small import SmallProject
from tests.acceptance.test_errors import SOUND, TASK, assert_refused, said, triggerkit

#: Loads the tasks as a worker's process does.
LOADER = """
from pathlib import Path
from triggerkit.project import Project
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.worker.telemetry.output import capture_output

capture_output(None)
assert load_project_tasks(Project.load(Path.cwd()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    (tmp_path / "tasks" / "orders.py").write_text(TASK)
    return tmp_path


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "::"])
def test_rows_reach_their_tasks_wherever_dev_listens(tmp_path: Path, host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    project = SmallProject(tmp_path)
    project.dev = DevProcess(tmp_path, "--host", host)
    project.dev.start()
    try:
        assert project.output_of_new_row() == "first"
    finally:
        assert project.dev.interrupt() == 0


def test_kubernetes_own_variable_is_no_port(folder: Path) -> None:
    settings = {**SOUND, "TRIGGERKIT_PORT": "tcp://10.0.171.239:8000"}
    assert_refused(triggerkit(folder, "serve", settings=settings), 4, "cannot connect")


@pytest.mark.parametrize("port", ["http", "-1", "65536", "80.5"])
def test_what_is_no_port_is_refused(folder: Path, port: str) -> None:
    refused = triggerkit(folder, "serve", settings={**SOUND, "TRIGGERKIT_PORT": port})
    assert refused.returncode == 2
    assert "is not a port" in said(refused)


@pytest.mark.parametrize("code", ["sys.exit()", "sys.exit(3)", "raise SystemExit('no')"])
def test_a_module_that_ends_the_process_is_named_by_its_line(folder: Path, code: str) -> None:
    (folder / "tasks" / "ends.py").write_text(f"import sys\n{code}\n")
    refused = triggerkit(folder, "tasks", settings=SOUND)
    assert_refused(refused, 2, "tasks.ends cannot be imported", "ends.py:2", "sys.exit(")


def test_the_program_of_a_package_is_not_run(folder: Path) -> None:
    (folder / "tasks" / "__main__.py").write_text("raise RuntimeError('run')")
    (folder / "tasks" / "more").mkdir()
    (folder / "tasks" / "more" / "__init__.py").touch()
    (folder / "tasks" / "more" / "__main__.py").write_text("raise RuntimeError('run')")
    (folder / "tasks" / "more" / "other.py").write_text(TASK.replace("confirm_order", "other"))
    listed = triggerkit(folder, "tasks")
    assert listed.returncode == 0, listed.stderr
    assert "confirm_order" in listed.stdout
    assert "other" in listed.stdout


def test_modules_without_any_task_are_one_error_of_the_worker(folder: Path) -> None:
    (folder / "tasks" / "orders.py").write_text("")
    refused = triggerkit(folder, "worker", "--child", settings=SOUND)
    assert_refused(refused, 2, "no task in tasks", "@task")


def test_dev_without_any_task_takes_in_the_first_one(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    (tmp_path / "tasks" / "note.py").write_text("")
    project.dev.start()
    try:
        assert project.said("no task in tasks")
        project.write_task("first")
        eventually(lambda: project.said("reloaded in"), 30, "a reload")
        assert project.output_of_new_row() == "first"
    finally:
        assert project.dev.interrupt() == 0


def test_a_folder_that_cannot_be_written_is_one_error_of_dev(folder: Path) -> None:
    (folder / ".triggerkit").write_text("in the way")
    refused = triggerkit(folder, "dev", "--port", "0")
    assert_refused(refused, 3, ".triggerkit", "cannot be written", "writable")


def test_a_module_may_change_how_the_output_is_written(folder: Path) -> None:
    code = "import sys\nsys.stdout.reconfigure(line_buffering=True, encoding='utf-8')\n"
    code += "sys.stderr.reconfigure(errors='replace')\n"
    code += "assert sys.stdout.name and sys.stdout.encoding and sys.stdout.errors\n"
    (folder / "tasks" / "odd.py").write_text(code)
    (folder / "loader.py").write_text(LOADER)
    loading = run_command(folder, "loader")
    assert loading.returncode == 0, loading.stderr


def test_threads_that_the_modules_start_hold_up_the_end_of_no_command(folder: Path) -> None:
    code = "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
    code += "pool = ThreadPoolExecutor(thread_name_prefix='endless')\n"
    code += "pool.submit(threading.Event().wait)\n"
    (folder / "tasks" / "orders.py").write_text(code + TASK)
    listed = triggerkit(folder, "tasks")
    assert listed.returncode == 0, said(listed)
    assert "do not end; leaving without them: endless_0" in said(listed)
