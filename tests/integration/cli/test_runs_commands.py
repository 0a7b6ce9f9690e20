"""The commands about runs, as one calls them, on a real state and a real worker."""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from tests import ROOT
from tests.integration.run_state import RunState, completed, failed_attempt, new_run
from tests.integration.worker_thread import executing
from triggerkit import current_run, span, task
from triggerkit.cli.main import application
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.follow import Follower, RunFollower
from triggerkit.runs.portal import portal
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TASKS = """
from triggerkit import task

@task
def work(payload: dict[str, int]) -> None: ...
"""

Command = Callable[..., Result]


@pytest.fixture
def command(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """Calls `triggerkit` in a folder with a task."""
    (tmp_path / "triggerkit.toml").write_text('tasks = ["commanded"]\n')
    (tmp_path / "commanded.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    def called(*arguments: str) -> Result:
        return CliRunner().invoke(application(arguments[0]), arguments)

    yield called
    portal.close()
    sys.modules.pop("commanded", None)


def done(result: Result) -> str:
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.output


def test_runs_are_listed_with_their_reasons_at_a_hundred_columns(
    state: RunState, command: Command
) -> None:
    key = 'public.posts:["1"]'
    [first] = state.accept(
        new_run("row/1", task="create_embedding_for_post", source={"table": "p", "key": key})
    )
    [second] = state.accept(new_run("row/1", task="create_embedding_for_post"))
    lines = done(command("runs", "list")).splitlines()
    assert lines[1].startswith(f"{second.id} queued    create_embedding_fo…")
    assert f"its key is held by {first.id} (queued)" in lines[2]
    assert "posts 1 " in lines[3]
    assert "start one with: triggerkit worker" in lines[4]
    assert max(len(line) for line in (lines[0], lines[1], lines[3])) <= 100
    page = done(command("runs", "list", "--limit", "1"))
    assert f"more: --after {second.id}" in page
    rest = done(command("runs", "list", "--after", second.id, "--json"))
    assert [run["id"] for run in orjson.loads(rest)] == [first.id]
    assert orjson.loads(done(command("runs", "list", "--status", "failed", "--json"))) == []
    filters = ("--status", "queued,failed", "--since", "2h", "--until", "2999-01-01")
    found = done(command("runs", "list", *filters, "--table", "p", "--json"))
    assert [run["id"] for run in orjson.loads(found)] == [first.id]
    assert "15m" in str(command("runs", "list", "--since", "soon").exception)


def test_a_run_is_shown_with_its_attempts_spans_and_lines(
    state: RunState, command: Command
) -> None:
    @task
    def talkative(payload: dict[str, int]) -> int:
        with span("outer"), span("inner"):
            current_run().log("hello", "WARNING")
        return 7

    with executing(state.settings, state.namespace, talkative):
        [handle] = state.accept(talkative.new_run({"n": 1}))
        state.wait_for_status("completed", handle.id)
    shown = done(command("runs", "show", handle.id))
    lines = shown.splitlines()
    named = {line.split()[0]: line for line in lines if line}
    assert named["payload"].endswith('{"n":1}')
    assert named["output"].endswith("7")
    steps = [line.split("█")[-1].split() for line in lines if "█" in line]
    names = [" ".join(step) for step in steps]
    assert names[0] == "accepted"
    assert names[-1] == "done completed"
    assert any(name.startswith("attempt 1") and name.endswith("completed") for name in names)
    inner = next(line for line in lines if "inner" in line)
    outer = next(line for line in lines if "outer" in line)
    assert inner.index("inner") == outer.index("outer") + 2
    assert lines[-1].endswith("[1] WARNING hello")
    as_json = orjson.loads(done(command("runs", "show", handle.id, "--json")))
    assert len(as_json["spans"]) == 3
    tailed = done(command("runs", "tail", handle.id))
    assert "WARNING hello" in tailed
    assert "completed" in tailed.splitlines()[-1]
    assert "triggerkit runs list" in str(command("runs", "show", "run_x").exception)


def test_an_error_is_shown_with_its_traceback_and_grouped(
    state: RunState, command: Command
) -> None:
    @task(retry=1)
    def careless(payload: dict[str, int]) -> None:
        raise ValueError("no [luck]")

    with executing(state.settings, state.namespace, careless):
        [handle] = state.accept(careless.new_run({"n": 1}))
        state.wait_for_status("failed", handle.id)
    shown = done(command("runs", "show", handle.id))
    assert "ValueError: no [luck]" in shown
    assert 'raise ValueError("no [luck]")' in shown
    assert "failed: ValueError" in shown
    lines = done(command("runs", "errors")).splitlines()
    assert lines[0].split(maxsplit=1) == ["1", "ValueError: no [luck]"]
    assert "test_runs_commands.py" in lines[1]
    assert lines[1].endswith("in careless")
    assert handle.id in lines[2]
    [group] = orjson.loads(done(command("runs", "errors", "--json", "--since", "1h")))
    assert (group["count"], group["tasks"]) == (1, ["careless"])


def test_runs_are_canceled_and_replayed_by_command(state: RunState, command: Command) -> None:
    first, second = (h.id for h in state.accept(new_run(), new_run()))
    assert f"{first}: canceled" in done(command("runs", "cancel", first))
    assert "--yes" in str(command("runs", "cancel", "--task", "work").exception)
    assert "--all" in str(command("runs", "cancel").exception)
    assert "--all" in str(command("runs", "cancel", first, "--all").exception)
    assert "canceled 1, stopping 0 that execute" in done(
        command("runs", "cancel", "--all", "--yes")
    )
    [handle] = orjson.loads(done(command("runs", "replay", first, "--json")))
    assert state.run(handle["id"])["replay_of"] == first
    edited = done(command("runs", "replay", first, "--payload", '{"n": 3}')).split()
    assert state.run(edited[0])["payload"] == '{"n":3}'
    assert "n" in str(command("runs", "replay", first, "--payload", '{"n": "x"}').exception)
    several = command("runs", "replay", first, second, "--payload", "{}")
    assert "one run" in str(several.exception)
    assert "replayed 2 runs" in done(command("runs", "replay", "--status", "canceled", "--yes"))
    refused = command("runs", "replay", "--status", "canceled", "--current", "--yes")
    assert refused.exit_code == 1
    assert "not replayed: 2" in refused.output
    actors = set(state.rows("SELECT DISTINCT split_part(actor, ':', 1) FROM triggerkit.audit"))
    assert actors == {"cli"}


def test_a_run_is_rescheduled_by_command(state: RunState, command: Command) -> None:
    [run] = (h.id for h in state.accept(new_run(delay_s=60)))
    due = "SELECT round(extract(epoch FROM scheduled_at - now()) / 3600) FROM triggerkit.runs"
    assert f"{run}: starts 2" in done(command("runs", "reschedule", run, "2h"))
    assert state.rows(due) == [2]
    assert f"{run}: starts now" in done(command("runs", "reschedule", run, "now"))
    assert state.rows(due) == [0]
    assert "how long from now" in str(command("runs", "reschedule", run, "soon").exception)
    assert "run_x" in str(command("runs", "reschedule", "run_x", "now").exception)


def test_queues_are_listed_paused_limited_and_resumed_by_command(
    state: RunState, command: Command
) -> None:
    state.accept(new_run())
    assert "paused default: 1 run waits in it" in done(command("queues", "pause", "default"))
    assert "paused since" in done(command("queues", "list"))
    limited = done(command("queues", "limit", "default", "--rate", "9/m"))
    assert "default: paused since" in limited
    assert " UTC, 9 in 60 s" in limited
    done(command("queues", "limit", "default", "--concurrency", "5"))
    assert "resumed default: 1 run waits in it" in done(command("queues", "resume", "default"))
    assert "5 at a time, 9 in 60 s" in done(command("queues", "list"))
    limits = ("--concurrency", "0", "--rate", "none")
    assert "default: no limits" in done(command("queues", "limit", "default", *limits))
    [queue] = orjson.loads(done(command("queues", "list", "--json")))
    assert (queue["queued"], queue["concurrency"]) == (1, None)


def test_schedules_and_workers_are_listed_and_steered_by_command(
    state: RunState, command: Command
) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, "
        "next_at) VALUES ('nightly', 'work', 'default', 3, '0 3 * * *', 'UTC', '2999-01-01')"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots, tasks) "
        "VALUES ('worker-1', 'host', 1, 1, 4, '{work}')"
    )
    assert "0 3 * * *" in done(command("schedules", "list"))
    done(command("schedules", "pause", "nightly"))
    assert "paused" in done(command("schedules", "list"))
    assert "resumed nightly: next at 2" in done(command("schedules", "resume", "nightly"))
    handle = orjson.loads(done(command("schedules", "run", "nightly")))
    assert state.run(handle["id"])["source"]["schedule"] == "nightly"
    [schedule] = orjson.loads(done(command("schedules", "list", "--json")))
    assert (schedule["name"], schedule["paused_at"]) == ("nightly", None)
    assert "silent" in done(command("workers", "list"))
    [worker] = orjson.loads(done(command("workers", "list", "--json")))
    assert worker["alive"] is False


def test_a_run_is_triggered_with_options(state: RunState, command: Command) -> None:
    options = (
        "--delay", "60", "--ttl", "600", "--idempotency-key", "k", "--idempotency-ttl", "60",
        "--concurrency-key", "c", "--priority", "5", "--tag", "red", "--tag", "blue",
        "--metadata", '{"a": 1}',
    )  # fmt: skip
    handle = orjson.loads(done(command("trigger", "work", "--payload", '{"n": 1}', *options)))
    run = state.run(handle["id"])
    assert (run["status"], run["tags"], run["metadata"]) == ("delayed", ["red", "blue"], {"a": 1})
    assert (run["concurrency_key"], run["priority"]) == ("c", 5)
    assert run["expires_at"] is not None
    again = orjson.loads(done(command("trigger", "work", *options)))
    assert again == {**handle, "duplicate": True}
    debounce = ("--debounce", "d", "--delay", "60")
    first = orjson.loads(done(command("trigger", "work", *debounce)))
    assert orjson.loads(done(command("trigger", "work", *debounce)))["id"] == first["id"]


def test_the_commands_of_the_page_do_what_they_say(
    state: RunState, command: Command, tmp_path: Path
) -> None:
    first, second = (state.accept(new_run())[0].id for _ in range(2))
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim([first])])
    page = (ROOT / "docs" / "runs.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    script = re.sub(r"run_\w{26}", first, script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={"PATH": path, **state.settings.environment()},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert state.run(second)["status"] == "canceled"
    assert state.rows("SELECT count(*) FROM triggerkit.runs WHERE replay_of = %s", first) == [2]
    assert state.rows("SELECT count(*) FROM triggerkit.runs WHERE replay_of = %s", second) == [1]
    assert state.rows("SELECT tags FROM triggerkit.runs WHERE tags <> '{}'") == [["by-hand"]]
    actions = state.rows("SELECT action FROM triggerkit.audit ORDER BY id")
    assert actions == [
        "cancel runs", "replay run", "replay run", "replay runs", "pause queue", "resume queue",
        "limit queue", "limit queue",
    ]  # fmt: skip


def test_a_follower_tells_each_change_once(state: RunState) -> None:
    async def followed() -> None:
        [before] = await asyncio.to_thread(state.accept, new_run())
        async with await connect(state.settings.state_dsn, "test") as connection:
            follower = Follower(connection, RunFilter(task="work"))
            await follower.begin()
            assert await follower.look() == []
            [new] = await asyncio.to_thread(state.accept, new_run())
            await asyncio.to_thread(state.accept, new_run(task="other"))
            assert told(await follower.look()) == [(new.id, "queued")]
            assert await follower.look() == []
            with state.claims() as claims:
                runs = claims.claim([before.id, new.id])
                claims.complete([completed(runs[0]), failed_attempt(runs[1], 60.0)])
            both = [(before.id, "completed"), (new.id, "retrying")]
            assert told(await follower.look()) == sorted(both)
            assert await follower.look() == []

    def told(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return [(run["id"], run["status"]) for run in runs]

    asyncio.run(followed())


def test_what_a_run_says_is_told_once(state: RunState) -> None:
    [handle] = state.accept(new_run())
    say = (
        "INSERT INTO triggerkit.spans (run_id, attempt, kind, name, started_at) "
        "VALUES (%s, 1, 'log', %s, now())"
    )

    async def followed() -> None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            follower = RunFollower(connection, handle.id)
            for text in ("one", "two"):
                state.connection.execute(say, [handle.id, text])
                run, said = await follower.look()
                assert [entry["name"] for entry in said] == [text]
                assert run["status"] == "queued"
            assert (await follower.look())[1] == []

    asyncio.run(followed())


def test_tail_prints_runs_as_they_come(state: RunState, command: Command, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    tailing = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", "runs", "tail", "--json"],
        cwd=tmp_path,
        env={**environment, **state.settings.environment()},
        stdout=subprocess.PIPE,
    )
    assert tailing.stdout is not None
    output = tailing.stdout
    ids: set[str] = set()

    def accepted_and_told() -> bool:
        # It shows what comes after its beginning, and nothing tells when that is.
        ids.add(state.accept(new_run())[0].id)
        return bool(select.select([output], [], [], 0.5)[0])

    try:
        state.wait_for(accepted_and_told, 60)
        told = orjson.loads(output.readline())
        assert told["id"] in ids
        assert told["status"] == "queued"
    finally:
        tailing.kill()
        tailing.wait()
        tailing.stdout.close()
