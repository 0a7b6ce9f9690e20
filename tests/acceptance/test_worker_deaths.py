"""Tasks that do harm to their process: it is replaced, and the other runs go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.acceptance.deaths import WorkerCommand
from tests.acceptance.processes import family, running
from tests.acceptance.project import eventually
from tests.integration.run_state import run_state
from triggerkit.settings import Settings


@pytest.fixture
def worker(
    settings: Settings, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[WorkerCommand]:
    with run_state(settings) as state:
        worker = WorkerCommand(tmp_path, state, database_url, redis_url)
        yield worker
        worker.close()


def test_a_run_that_ends_its_process_is_given_up_after_three_and_others_go_on(
    worker: WorkerCommand,
) -> None:
    worker.start()
    guilty = worker.trigger("exits")
    others = [worker.trigger("adds", {"a": n}) for n in range(20)]
    [row] = worker.wait_for("crashed", guilty)
    assert (row["crashes"], row["attempt"]) == (3, 3)
    assert row["error"]["type"] == "WorkerDied"
    assert [status for _, status, _ in worker.state.attempts(guilty)] == ["crashed"] * 3
    worker.wait_for("completed", *others)
    assert worker.said("ended with code 7")
    assert worker.stop() == 0


def test_a_child_that_the_kernel_kills_is_replaced_and_its_runs_are_executed_again(
    worker: WorkerCommand, tmp_path: Path
) -> None:
    worker.start()
    run = worker.trigger("killed", {"path": str(tmp_path)})
    pids = tmp_path / "killed.pids"
    eventually(lambda: pids.exists() and pids.read_text(), 30, "the attempt's process")
    os.kill(int(pids.read_text().split()[0]), signal.SIGKILL)
    [row] = worker.wait_for("completed", run)
    assert (row["crashes"], row["attempt"]) == (1, 2)
    assert worker.stop() == 0


#: Keeps a child from going on for a moment when it is about to hear its parent: one that took runs
#: before would have executed one.
SLOW_TO_HEAR = """
import threading
from harmful import *

start = threading.Thread.start

def start_slowly(thread: threading.Thread) -> None:
    if thread.name == "cancellations":
        threading.Event().wait(1)
    start(thread)

threading.Thread.start = start_slowly
"""


def test_the_first_run_may_kill_a_child_that_has_only_just_started(worker: WorkerCommand) -> None:
    (worker.folder / "slow_to_hear.py").write_text(SLOW_TO_HEAR)
    (worker.folder / "triggerkit.toml").write_text('tasks = ["slow_to_hear"]\n')
    guilty, other = worker.trigger("exits"), worker.trigger("adds", {"a": 1})
    worker.start()
    worker.wait_for("crashed", guilty)
    worker.wait_for("completed", other)
    assert worker.said("ended with code 7")
    assert worker.stop() == 0


def test_a_fork_that_returns_does_not_go_on_as_a_worker(worker: WorkerCommand) -> None:
    worker.start()
    runs = [worker.trigger("forks") for _ in range(5)]
    rows = worker.wait_for("completed", *runs)
    assert {orjson.loads(row["output"]) for row in rows} == {"the parent"}
    assert {row["attempt"] for row in rows} == {1}
    processes = family(worker.pid)
    assert len(running(processes)) == 2
    assert worker.stop() == 0


def test_what_a_task_has_forked_ends_by_sigterm(worker: WorkerCommand) -> None:
    worker.start()
    [row] = worker.wait_for("completed", worker.trigger("ends_its_children"))
    assert orjson.loads(row["output"]) == [-signal.SIGTERM] * 20
    assert worker.stop() == 0


def test_the_standard_input_of_a_task_and_of_its_programs_is_empty(worker: WorkerCommand) -> None:
    worker.start()
    [row] = worker.wait_for("completed", worker.trigger("reads_its_input"))
    assert orjson.loads(row["output"]) == ["", ""]
    assert worker.stop() == 0


def test_signal_handlers_are_the_workers_own(worker: WorkerCommand) -> None:
    worker.start()
    [row] = worker.wait_for("failed", worker.trigger("changes_handlers", max_attempts=1))
    assert "signal only works in main thread" in row["error"]["message"]
    # The module ignores SIGTERM and SIGINT when it is imported.
    assert worker.stop() == 0


def test_a_call_that_blocks_in_c_is_timed_out_and_its_process_replaced(
    worker: WorkerCommand,
) -> None:
    worker.start("--threads", "2")
    blocked = [worker.trigger("sleeps") for _ in range(2)]
    worker.wait_for("timed_out", *blocked)
    worker.wait_for("completed", worker.trigger("adds", {"a": 1}))
    assert worker.said("since code of a run did not end")
    assert worker.stop() == 0


def test_asked_to_end_while_a_process_is_replaced_it_finishes_what_it_has(
    worker: WorkerCommand, tmp_path: Path
) -> None:
    worker.start("--threads", "2")
    run = worker.trigger("waits", {"gate": str(tmp_path / "gate")})
    worker.wait_for("executing", run)
    worker.wait_for("timed_out", worker.trigger("sleeps"))
    eventually(lambda: worker.said("did not stop; replacing its process"), 20, "its replacement")
    worker.ask_to_end()
    stopping = "SELECT pid FROM triggerkit.workers WHERE stopping"
    worker.state.wait_for(lambda: worker.state.rows(stopping))
    (tmp_path / "gate").touch()
    assert worker.wait() == 0
    assert worker.state.run(run)["status"] == "completed"


def test_runs_of_tasks_that_nobody_knows_are_kept_and_disturb_no_others(
    worker: WorkerCommand,
) -> None:
    gone = [worker.trigger("removed_task", {"n": n}) for n in range(3)]
    worker.start()
    run = worker.trigger("adds", {"a": 1})
    worker.wait_for("completed", run)
    assert {row["status"] for row in map(worker.state.run, gone)} == {"queued"}
    spans = "SELECT level, name FROM triggerkit.spans WHERE run_id = %s"
    assert worker.stop() == 0
    assert worker.state.rows(spans, run) == [("stdout", "adding 1")]


def test_a_worker_tells_of_limits_that_are_others_than_its_codes(
    worker: WorkerCommand, tmp_path: Path
) -> None:
    tasks = tmp_path / "harmful.py"
    tasks.write_text(f'{tasks.read_text()}\n@task(queue=Queue("mail", rate="5/s"))\ndef m(): ...\n')
    worker.start()
    worker.wait_for("completed", worker.trigger("adds", {"a": 1}))
    assert worker.said("until `triggerkit apply`: create limits of queue mail")
    assert worker.state.rows("SELECT * FROM triggerkit.queues") == []
