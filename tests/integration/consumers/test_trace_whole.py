"""The whole way of one row, from its commit to the spans of its run, by position and by run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.integration.pipeline import execute, streaming
from tests.integration.run_state import RunState
from tests.integration.serving import serving
from tests.integration.worker_thread import Row, working
from tests.receiver import Receiver
from triggerkit import Change, changes, current_run, span, task
from triggerkit.cli.main import application
from triggerkit.consumers.declare.apply import apply
from triggerkit.state.connect import connect
from triggerkit.tasks.registry import declared_consumers
from triggerkit.web.application import Application


def call(*arguments: str) -> str:
    result = CliRunner().invoke(application(arguments[0]), arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.output


def test_a_row_is_traced_from_its_commit_to_the_spans_of_its_run(
    state: RunState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = state.settings

    @task(on=changes("public.items"), retry=2)
    def tell(change: Change[Row]) -> str:
        with span("greet"):
            current_run().log("hello", "INFO")
        if current_run().attempt == 1:
            raise ConnectionError("away")
        return "done"

    async def captured(url: str) -> None:
        await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, text text)")
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as stated,
        ):
            await apply(source, stated, declared_consumers({"tell": tell}), url)
        async with streaming(settings, Receiver(url=url)):
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await asyncio.to_thread(state.wait_for, lambda: state.statuses() == ["completed"], 30.0)

    with serving(Application(settings, [tell], None)) as site, working(state, tell):
        asyncio.run(captured(f"http://127.0.0.1:{site.port}"))
        state.wait_for(lambda: state.rows("SELECT count(*) = 4 FROM triggerkit.spans")[0])
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    [run_id] = state.rows("SELECT id FROM triggerkit.runs")
    printed = call("trace", "1")
    steps = [line.split("█")[-1].strip() for line in printed.splitlines() if "█" in line]
    names = [step.split("  ")[0] for step in steps]
    assert names == [
        "committed", "captured", "tell: delivery, attempt 1", f"{run_id}: accepted", "queued",
        "attempt 1", "greet", "waits for its retry", "queued", "attempt 2", "greet", "done",
    ]  # fmt: skip
    assert steps[2].endswith("200")
    assert steps[5].endswith("failed: ConnectionError")
    assert steps[9].endswith("completed")
    drawn = [line for line in printed.splitlines() if "█" in line]
    times = [float(line.split()[0].replace(",", "")) for line in drawn]
    assert times[0] == 0.0
    assert times == sorted(times)
    assert call("trace", run_id) == printed
    found = orjson.loads(call("trace", run_id, "--json"))
    [run] = found["consumers"][0]["runs"]
    assert [attempt["status"] for attempt in run["attempts"]] == ["failed", "completed"]
    assert {entry["name"] for entry in run["spans"]} == {"greet", "hello"}
    [replayed] = call("runs", "replay", run_id).split()[:1]
    by_replay = orjson.loads(call("trace", replayed, "--json"))
    assert {r["id"] for r in by_replay["consumers"][0]["runs"]} == {run_id, replayed}
