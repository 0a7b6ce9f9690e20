"""`triggerkit.testing`: what its page does not show, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tasks.create_embedding_for_post import Post, create_embedding_for_post
from tests.conftest import WEBHOOK_SECRET
from triggerkit import RetryAfter, RunFailed, current_run, task, webhook
from triggerkit.errors import NotDrained, UnknownRun, UnknownTask
from triggerkit.runs.door import door
from triggerkit.runs.portal import portal
from triggerkit.tasks.declare import declared
from triggerkit.testing import (
    MemoryRuns,
    arun_task,
    fake_message,
    memory_runs,
    run_task,
)


def test_what_a_run_prints_and_logs_belongs_to_it_and_is_seen_by_the_test(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = sys.stdout, sys.stderr, list(logging.getLogger().handlers)

    @task
    async def talk() -> None:
        print("printed")
        logging.getLogger("shop").warning("logged", extra={"number": 1})
        sys.stderr.write("without an end")

    run = run_task(talk)
    assert [(line.text, line.level) for line in run.log] == [
        ("printed", "stdout"),
        ("logged", "warning"),
        ("without an end", "stderr"),
    ]
    assert capsys.readouterr() == ("printed\n", "without an end\n")
    assert caplog.messages == ["logged"]
    assert (sys.stdout, sys.stderr, logging.getLogger().handlers) == before


def test_async_tests_run_async_tasks_on_their_own_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @task(retry=2)
    async def note() -> None:
        loops.append(asyncio.get_running_loop())
        if current_run().attempt == 1:
            raise ValueError("again")

    @task
    def plain() -> str:
        return asyncio.run(asyncio.sleep(0, "a loop of its own"))

    async def test() -> list[str]:
        with memory_runs() as runs:
            first = await arun_task(note)
            await plain.atrigger()
            seen = [*await runs.adrain(), *await runs.afinish()]
            assert set(loops) == {asyncio.get_running_loop()}
            assert (first.status, first.attempt) == ("completed", 2)
            assert runs.triggered(plain).output == "a loop of its own"
            return [run.task.name for run in seen]

    assert asyncio.run(test()) == ["plain", "note"]


def test_sync_tests_have_one_loop_for_all_async_tasks() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @task
    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    run_task(note)
    run_task(note)
    assert loops[0] is loops[1]
    assert not loops[0].is_closed()


def test_an_async_task_that_blocks_its_loop_to_wait_is_told(runs: MemoryRuns) -> None:
    @task
    async def child() -> None: ...

    @task(retry=1)
    async def parent() -> None:
        child.trigger_and_wait()

    run = run_task(parent)
    assert run.error is not None
    assert "use `await task.atrigger_and_wait(…)`" in run.error.message


def test_ctrl_c_ends_the_tests_and_not_the_run() -> None:
    @task
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_task(interrupted)


def test_one_attempt_is_made_whatever_the_run_waits_for(runs: MemoryRuns) -> None:
    @task(retry=5)
    def work(payload: dict[str, Any]) -> int:
        return current_run().attempt

    waiting = work.trigger({}, concurrency_key="k")
    run = run_task(work, {}, concurrency_key="k", delay=60, attempt=4)
    assert (run.status, run.output, runs[waiting].status) == ("completed", 4, "queued")
    assert runs.of(work) == [runs[waiting], run]


def test_what_a_run_triggers_is_recorded_and_not_executed() -> None:
    @task
    def child(payload: dict[str, Any]) -> None: ...

    @task
    def parent() -> None:
        child.trigger_many([{"n": 1}, {"n": 2}], tags=["many"])

    run = run_task(parent)
    assert [(r.task, r.payload, r.status) for r in run.triggered] == [
        (child, {"n": 1}, "queued"),
        (child, {"n": 2}, "queued"),
    ]
    assert run.triggered[0].tags == ["many"]
    assert door() is portal


def test_runs_that_make_no_end_are_told_with_their_task(runs: MemoryRuns) -> None:
    @task
    def forever() -> None:
        raise RetryAfter(0)

    handle = forever.trigger()
    with pytest.raises(NotDrained, match=r"after 50 attempts.*forever had 50 of them"):
        runs.drain(limit=50)
    assert (runs[handle].status, runs[handle].attempt) == ("queued", 50)
    with pytest.raises(NotDrained):
        runs.finish(limit=5)


def test_runs_that_wait_for_each_other_are_told(runs: MemoryRuns) -> None:
    @task(retry=1)
    def one(depth: dict[str, int]) -> None:
        if depth["n"] == 0:
            two.trigger_and_wait({"n": 1})

    @task(retry=1)
    def two(depth: dict[str, int]) -> None:
        one.trigger_and_wait({"n": 1}, concurrency_key="k")

    with pytest.raises(RunFailed, match="is waited for, and nothing will let it go on"):
        one.trigger_and_wait({"n": 0}, concurrency_key="k")


def test_what_is_not_one_run_is_shown(runs: MemoryRuns) -> None:
    @task(retry=1)
    def refuse() -> None:
        raise ValueError("no")

    @task
    def other() -> None: ...

    with pytest.raises(AssertionError, match=r"refuse has 0 runs, not one; all runs:\n  none"):
        runs.triggered(refuse)
    refuse.trigger()
    runs.drain()
    with pytest.raises(AssertionError, match=r"other has 0(?s:.*)refuse run_\w+ failed.*: no"):
        runs.triggered(other)
    refuse.trigger()
    with pytest.raises(AssertionError, match="refuse has 2 runs, not one; its runs:"):
        runs.triggered(refuse)


def test_what_is_unknown_is_told(runs: MemoryRuns) -> None:
    @task
    def gone() -> None: ...

    del declared["gone"]
    with pytest.raises(UnknownTask, match="'gone'"):
        gone.trigger()
    with pytest.raises(UnknownRun, match="not among the 0 runs"):
        _ = runs["run_1"]


def test_many_runs_are_drained_in_a_moment(runs: MemoryRuns) -> None:
    @task
    def count(payload: dict[str, int]) -> int:
        return payload["n"]

    count.trigger_many([{"n": n} for n in range(5000)], concurrency_key="one at a time")
    assert [run.output for run in runs.drain()] == list(range(5000))


def test_the_route_of_the_reference_task_makes_one_run_of_a_batch(
    triggerkit_runs: MemoryRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGGERKIT_WEBHOOK_SECRET", WEBHOOK_SECRET)
    route = webhook("/posts", task=create_embedding_for_post)
    client = TestClient(
        Starlette(routes=[route]), headers={"authorization": f"Bearer {WEBHOOK_SECRET}"}
    )
    messages = [fake_message(Post(id=1, title="One")), fake_message(Post(id=2), action="delete")]
    ours = {"triggerkit-attempt": "1", "webhook-id": "msg_1"}
    handles = [
        handle
        for _ in range(2)
        for handle in client.post("/posts", json={"data": messages}, headers=ours).json()["data"]
    ]
    run = triggerkit_runs.triggered(create_embedding_for_post)
    assert [handle["id"] for handle in handles] == [run.id] * 4
    assert [change.record for change in run.changes] == [Post(id=1, title="One"), Post(id=2)]
    assert run.new.source is not None
    assert run.new.source["last_position"] == messages[1]["metadata"]["position"]
    assert client.post("/posts", json={"data": [{}]}).status_code == 422


def test_the_plugin_is_found_by_pytest_and_imports_nothing_before_it_is_used() -> None:
    [plugin] = [e for e in entry_points(group="pytest11") if e.name == "triggerkit"]
    loaded = (
        "import sys, importlib; before = set(sys.modules); "
        f"importlib.import_module({plugin.value!r}); "
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('_')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import pytest; {loaded}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["triggerkit", "triggerkit.pytest_plugin"]
