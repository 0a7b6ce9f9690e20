"""Queue limits and schedules of code: planned, made, changed and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psycopg
import pytest
from typer.testing import CliRunner

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.worker_thread import working
from triggerkit import Cron, Queue, task
from triggerkit.cli.main import application
from triggerkit.errors import ConfigurationError, DeclaredElsewhere
from triggerkit.runs.admin.queues import limit_queue
from triggerkit.runs.client import Client
from triggerkit.runs.declared import DeclaredRuns, Limits, apply_runs, plan_runs
from triggerkit.state.connect import connect
from triggerkit.tasks.declare import declared
from triggerkit.tasks.registry import declared_runs

T = TypeVar("T")

PROJECT = """
from triggerkit import Cron, Queue, task

@task(queue=Queue("mail", concurrency=2, rate="10/m"))
def send() -> None: ...

@task(schedule=Cron("30 6 * * 1-5", timezone="Europe/Berlin"))
def report() -> None: ...
"""


def on_state(state: RunState, work: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with await connect(state.settings.state_dsn, "test") as connection:
            return await work(connection)

    return asyncio.run(connected())


def apply(state: RunState, *tasks: Any) -> list[str]:
    """Apply what `tasks` declare; what was done."""
    wanted = declared_runs({t.name: t for t in tasks})
    return [step.done for step in on_state(state, lambda c: apply_runs(c, wanted))]


def test_applying_twice_changes_nothing_and_a_change_is_told_by_field(state: RunState) -> None:
    @task(queue=Queue("mail", concurrency=2, rate="10/m"))
    def send() -> None: ...

    @task(schedule="30 6 * * *")
    def report() -> None: ...

    done = ["created limits of queue mail", "created schedule report"]
    assert apply(state, send, report) == done
    assert apply(state, send, report) == []
    assert state.rows("SELECT * FROM triggerkit.queues") == [("mail", 2, 10, 60.0, "code", None)]
    changed = DeclaredRuns({"mail": Limits(concurrency=3)})
    planned = on_state(state, lambda c: plan_runs(c, changed))
    assert [str(step) for step in planned] == [
        "\n    ".join(
            [
                "change limits of queue mail",
                "concurrency: 2 → 3",
                "rate_limit: 10 → none",
                "rate_period_s: 60.0 → none",
            ]
        ),
        "delete schedule report\n    no task declares it any more",
    ]
    assert apply(state) == ["deleted limits of queue mail", "deleted schedule report"]
    assert state.rows("SELECT name FROM triggerkit.schedules") == []


def test_a_schedule_waits_for_its_next_tick_and_keeps_it_until_its_expression_changes(
    state: RunState,
) -> None:
    @task(schedule=Cron("30 6 * * *", timezone="Europe/Berlin"), retry=5)
    def report() -> None: ...

    apply(state, report)
    [(next_at, attempts)] = state.rows("SELECT next_at, max_attempts FROM triggerkit.schedules")
    assert next_at == next(Cron("30 6 * * *", "Europe/Berlin").after(datetime.now(UTC)))
    assert attempts == 5
    early = datetime(2030, 1, 1, tzinfo=UTC)
    state.connection.execute("UPDATE triggerkit.schedules SET next_at = %s", [early])
    report.schedule = Cron("30 6 * * *", timezone="Europe/Berlin", catch_up=True)
    assert apply(state, report) == ["changed schedule report"]
    assert state.rows("SELECT next_at, catch_up FROM triggerkit.schedules") == [(early, True)]
    report.schedule = Cron("0 7 * * *", timezone="Europe/Berlin")
    apply(state, report)
    assert state.rows("SELECT next_at FROM triggerkit.schedules") != [early]


def test_a_first_limit_holds_what_waits_and_counts_what_executes(state: RunState) -> None:
    runs = [new_run(queue="mail") for _ in range(4)]
    state.accept(*runs)
    state.connection.execute(
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots) "
        "VALUES ('worker-1', '', 1, 1, 1)"
    )
    with state.claims() as claims:
        [executing] = claims.claim([runs[0].id])

        @task(queue=Queue("mail", concurrency=2), name="work")
        def send() -> None: ...

        apply(state, send)
        gates = "SELECT gate FROM triggerkit.runs ORDER BY seq"
        assert state.rows(gates) == ["open", "held", "held", "held"]
        with working(state, task(name="other")(lambda: None)):
            state.wait_for(lambda: state.rows(gates) == ["open", "open", "held", "held"])
            claims.complete([completed(executing)])
            state.wait_for(lambda: state.rows(gates) == [None, "open", "open", "held"])


def test_without_limits_what_was_held_goes_on_unless_the_queue_is_paused(state: RunState) -> None:
    @task(queue=Queue("mail", concurrency=1))
    def send() -> None: ...

    @task(queue=Queue("other", concurrency=1))
    def other() -> None: ...

    apply(state, send, other)
    runs = [t.run_of(b"null") for t in (send, send, send, other, other)]
    state.accept(*runs)
    state.connection.execute("UPDATE triggerkit.queues SET paused_at = now() WHERE name = 'other'")
    apply(state)
    gates = "SELECT queue, gate FROM triggerkit.runs ORDER BY seq"
    assert state.rows(gates)[:3] == [("mail", None)] * 3
    assert state.rows(gates)[4] == ("other", "held")
    state.take("send")
    with working(state, send):
        state.wait_for_status("completed", *(run.id for run in runs[:3]))


def test_two_tasks_with_other_limits_of_one_queue_are_refused() -> None:
    task(name="first", queue=Queue("mail", concurrency=1))(lambda: None)
    task(name="second", queue="mail")(lambda: None)
    task(name="third", queue=Queue("mail", concurrency=2))(lambda: None)
    with pytest.raises(ConfigurationError, match="task third: another task declares other limits"):
        declared_runs(dict(declared))


def test_plan_shows_and_apply_makes_what_the_project_declares(
    triggers: RunState, tmp_path: Path
) -> None:
    declared.clear()
    (tmp_path / "declaring_tasks.py").write_text(PROJECT)
    (tmp_path / "triggerkit.toml").write_text('tasks = ["declaring_tasks"]\n')
    invoke = CliRunner().invoke
    planned = invoke(application(), ["plan"])
    assert planned.exception is None, planned.exception
    shown = planned.output
    assert "create limits of queue mail\n    concurrency: 2" in shown
    assert "create schedule report" in shown
    steps = orjson.loads(invoke(application(), ["plan", "--json"]).output)["steps"]
    assert [(s["verb"], s.get("queue"), s.get("schedule")) for s in steps][-2:] == [
        ("create", "mail", None),
        ("create", None, "report"),
    ]
    applied = invoke(application(), ["apply"])
    assert applied.output.splitlines()[-2:] == [
        "created limits of queue mail",
        "created schedule report",
    ]
    assert invoke(application(), ["plan"]).output == "nothing to change\n"


def test_limits_that_tasks_declare_are_not_changed_by_a_command_nor_others_by_apply(
    state: RunState,
) -> None:
    @task(queue=Queue("mail", concurrency=2))
    def send() -> None: ...

    async def limit(name: str, concurrency: int) -> None:
        client = await Client.open(state.settings)
        try:
            await limit_queue(client, name, "test", concurrency=concurrency, rate=None)
        finally:
            await client.close()

    apply(state, send)
    asyncio.run(limit("other", 7))
    with pytest.raises(DeclaredElsewhere, match="limits of the queue mail are declared in code"):
        asyncio.run(limit("mail", 7))
    assert apply(state) == ["deleted limits of queue mail"]
    limits = "SELECT name, concurrency FROM triggerkit.queues ORDER BY 1"
    assert state.rows(limits) == [("mail", None), ("other", 7)]
