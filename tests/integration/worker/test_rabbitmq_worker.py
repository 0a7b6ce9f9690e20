"""Whole workers over RabbitMQ, while it is away, loses everything, or a worker dies with ids."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette

from tests.acceptance.project import clean_environment
from tests.integration.run_state import TASK, RunState, new_run, run_state
from tests.integration.serving import serving
from tests.integration.worker_thread import working
from tests.rabbitmq import RabbitmqServer
from triggerkit import task
from triggerkit.failpoints import VARIABLE
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import new_run_id
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.runs.transport.rabbitmq.broker import IdBroker, queue_of
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned
from triggerkit.web.application import Application
from triggerkit.web.webhook import webhook

NOTE = """
from triggerkit import task

@task(name="work")
def work(payload: dict) -> int:
    return payload["n"]
"""

#: Runs accepted a minute ago, of which RabbitMQ never heard.
BACKLOG = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, rank)
SELECT unnest(%s::text[]), 'work', 'default', 'queued', 3, '{"n": 1}',
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 60000000
"""


class Order(BaseModel):
    """A payload."""

    n: int


@task(name=TASK)
def work(order: Order) -> int:
    return order.n


@pytest.fixture
def over_rabbitmq(
    database_url: str, settings: Settings, rabbitmq_server: RabbitmqServer
) -> Settings:
    """Settings whose Redis is nowhere."""
    return Settings.parse(
        {
            **settings.environment(),
            "REDIS_URL": "unix:///nowhere/redis.sock",
            **rabbitmq_server.settings(),
        }
    )


@pytest.fixture
def state(over_rabbitmq: Settings) -> Iterator[RunState]:
    with run_state(over_rabbitmq) as state:
        yield state


def ids(runs: list[Any]) -> list[str]:
    return [run.id for run in runs]


def waiting(state: RunState) -> int:
    """The messages that are with no worker."""
    broker = IdBroker(state.settings.rabbitmq_dsn or "")
    try:
        return broker.waiting(queue_of(state.namespace, TASK))
    finally:
        broker.close()


def purge(state: RunState) -> None:
    """Have RabbitMQ lose all ids."""
    broker = IdBroker(state.settings.rabbitmq_dsn or "")
    broker.channel.queue_purge(queue_of(state.namespace, TASK))
    broker.close()


def test_runs_of_threads_and_of_the_event_loop_are_executed(state: RunState) -> None:
    @task
    async def on_loop(order: Order) -> int:
        return order.n

    runs = [t.new_run({"n": n}) for t in (work, on_loop) for n in range(150)]
    with working(state, work, on_loop):
        state.accept(*runs)
        rows = state.wait_for_status("completed", *ids(runs))
    assert {(row["attempt"], row["crashes"]) for row in rows} == {(1, 0)}


def test_runs_of_two_workers_are_executed_once_each(state: RunState) -> None:
    executed: list[int] = []

    @task
    def note(order: Order) -> None:
        executed.append(order.n)

    runs = [note.new_run({"n": n}) for n in range(300)]
    with working(state, note), working(state, note):
        state.accept(*runs)
        state.wait_for_status("completed", *ids(runs))
    assert sorted(executed) == list(range(300))


def test_a_worker_whose_slots_are_busy_leaves_runs_to_others(state: RunState) -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()

    @task
    def wait_at_first(order: Order) -> None:
        if order.n == 0:
            entered.release()
            assert go_on.wait(30)

    first = [wait_at_first.new_run({"n": 0}) for _ in range(4)]
    later = [wait_at_first.new_run({"n": n}) for n in range(1, 20)]
    with working(state, wait_at_first, threads=4):
        state.accept(*first)
        for _ in first:
            assert entered.acquire(timeout=15)
        state.accept(*later)
        with working(state, wait_at_first, threads=4):
            state.wait_for_status("completed", *ids(later))
            go_on.set()
            state.wait_for_status("completed", *ids(first))


@pytest.mark.parametrize("force", [False, True], ids=["stopped", "killed"])
def test_a_run_triggered_while_rabbitmq_is_away_starts_when_it_is_back(
    over_rabbitmq: Settings, state: RunState, rabbitmq_server: RabbitmqServer, force: bool
) -> None:
    site = Application(over_rabbitmq, [], webhook_routes())
    with working(state, work), serving(site) as served:
        assert served.post("/work", {"n": 1}).status == 200
        with rabbitmq_server.away(force=force):
            assert served.post("/work", {"n": 2}).status == 200
            answer = served.request("GET", "/readyz")
            assert (answer.status, answer.json["missing"]) == (503, ["rabbitmq"])
        state.wait_for(lambda: state.statuses() == ["completed"] * 2)
        assert served.request("GET", "/readyz").status == 200


def webhook_routes() -> Starlette:
    return Starlette(routes=[webhook("/work", task=work)])


def test_a_restart_with_runs_in_its_queue_loses_none(
    state: RunState, rabbitmq_server: RabbitmqServer
) -> None:
    before, after = ([work.new_run({"n": n}) for n in range(100)] for _ in range(2))
    state.accept(*before)
    with rabbitmq_server.away(force=True):
        pass
    state.accept(*after)
    with working(state, work):
        state.wait_for_status("completed", *ids([*before, *after]))


def test_what_rabbitmq_lost_is_pushed_again(state: RunState) -> None:
    runs = [work.new_run({"n": n}) for n in range(50)]
    state.accept(*runs)
    purge(state)
    assert waiting(state) == 0
    with working(state, work):
        rows = state.wait_for_status("completed", *ids(runs))
    assert {row["attempt"] for row in rows} == {1}


def test_a_keeper_pushes_what_is_missing_once(state: RunState) -> None:
    keeper = Keeper(
        pinned(by_index(state.settings.state_dsn), "triggerkit keeper"),
        open_transport(state.settings, state.namespace),
        ExecutingProcesses(),
        threading.Event(),
        Retention(timedelta(days=7)),
    )
    state.connection.execute(BACKLOG, [[new_run_id() for _ in range(20)]])
    counts = []
    for _ in range(3):
        keeper.tick(state.connection, FailureDetector(8.0))
        counts.append(waiting(state))
    assert counts == [20] * 3


def test_ids_that_are_no_runs_do_no_harm(state: RunState) -> None:
    broker = IdBroker(state.settings.rabbitmq_dsn or "")
    broker.push(queue_of(state.namespace, TASK), ["", "run_1", "a\x00b", new_run_id()])
    run = work.new_run({"n": 1})
    state.accept(run)
    with working(state, work):
        state.wait_for_status("completed", run.id)
    broker.close()


@pytest.mark.parametrize("point", ["run-popped", "run-claimed"])
def test_runs_of_a_worker_that_is_killed_with_their_ids_are_executed(
    state: RunState, tmp_path: Path, point: str
) -> None:
    (tmp_path / "tasks.py").write_text(NOTE)
    runs = [new_run(payload=b'{"n": 1}') for _ in range(20)]
    fired = tmp_path / "fired"
    environment = {
        **clean_environment(),
        **state.settings.environment(),
        VARIABLE: f"{point}={fired}",
    }
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", "worker", "--processes", "1"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        state.wait_for(lambda: "ready" in (tmp_path / "log").read_text(), 40)
        state.accept(*runs)
        state.wait_for(lambda: set(state.statuses()) == {"completed"}, 40)
    except AssertionError as error:
        error.add_note((tmp_path / "log").read_text())
        raise
    finally:
        worker.terminate()
        worker.wait(20)
    assert fired.exists()
    crashes = {state.run(run.id)["crashes"] for run in runs}
    assert crashes <= ({0} if point == "run-popped" else {0, 1})
