"""Why a row has no effect, once a run was made of it: by the run, its items and its replays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import orjson
import psycopg
import pytest

from tests.integration.consumers.test_trace import until
from tests.integration.pipeline import declare, execute, streaming
from tests.integration.web.api.described import api
from tests.receiver import Receiver
from triggerkit import Change, rows, task
from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.definition import changes
from triggerkit.message import row_key
from triggerkit.settings import Settings
from triggerkit.state.connect import pool
from triggerkit.tasks.task import Task
from triggerkit.why.answer import Answer
from triggerkit.why.ask import Question, ask

ERROR = {
    "type": "ValueError",
    "message": "no such price",
    "traceback": 'Traceback\n  File "/project/tasks/items.py", line 12, in work\n    raise\n',
}

IN_STEP = """
SELECT i.id, CASE WHEN i.name = '' THEN 'empty' ELSE 'missing' END
FROM items i WHERE i.id NOT IN (SELECT id FROM effects)
"""


class Rows:
    """Three rows that a receiver got as one batch; its runs are written as a worker would."""

    def __init__(self, settings: Settings, batch_id: str, table: str) -> None:
        self._settings = settings
        self._batch_id = batch_id
        self._table = table

    def run(self, run_id: str, status: str, **columns: Any) -> None:
        """Write a run, of the batch's own key unless another is given."""
        source = {"consumer": "all", "table": "public.items", "position": 1, "last_position": 3}
        values = {
            "task": "work",
            "queue": "default",
            "max_attempts": 3,
            "attempt": 1,
            "payload": "{}",
            "items": 3,
            "idempotency_key": self._batch_id,
            "source": orjson.dumps(source).decode(),
            **columns,
        }
        if status in ("failed", "completed"):
            values["finished_at"] = "2026-01-02T03:04:05Z"
        names = ", ".join(["id", "status", *values])
        with psycopg.connect(self._settings.state_dsn, autocommit=True) as connection:
            connection.execute(
                f"INSERT INTO triggerkit.runs ({names}) "
                f"VALUES ({', '.join(['%s'] * (len(values) + 2))})",
                [f"run_{run_id:0>26}", status, *values.values()],
            )

    def item(self, run_id: str, status: str, key: str, **columns: Any) -> None:
        """Write a run of one item that failed in the batch."""
        row = row_key("public", self._table, [key])
        source = {
            "consumer": "all",
            "table": table_text("public", self._table),
            "position": 2,
            "key": row,
            "batch": f"run_{1:0>26}",
        }
        self.run(
            run_id,
            status,
            idempotency_key=None,
            items=1,
            item_key=row,
            source=orjson.dumps(source).decode(),
            **columns,
        )

    def execute(self, *statements: str) -> None:
        """Run statements on the source and state."""
        asyncio.run(execute(self._settings, *statements))

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Raise the workers' heartbeats, as they do."""
        is_over = Event()

        def beat() -> None:
            with psycopg.connect(self._settings.state_dsn, autocommit=True) as connection:
                while not is_over.wait(0.1):
                    connection.execute("UPDATE triggerkit.workers SET beat = beat + 1")

        beats = Thread(target=beat)
        beats.start()
        try:
            yield
        finally:
            is_over.set()
            beats.join()

    def why(self, *words: str, tasks: tuple[Task[Any, Any, Any], ...] = ()) -> Answer:
        """Ask."""

        async def asked() -> Answer:
            async with pool(self._settings.state_dsn, "test", size=2) as states:
                return await ask(states, self._settings, tasks, Question.of(words))

        return asyncio.run(asked())


@pytest.fixture
def delivered(settings: Settings, request: pytest.FixtureRequest) -> Rows:
    """Rows 1 to 3 of `items`, or of the table given, delivered in one batch."""
    table = getattr(request, "param", "items")
    quoted = '"{}"'.format(table.replace('"', '""'))

    async def scenario() -> str:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                f"CREATE TABLE {quoted} (id bigint PRIMARY KEY, name text)",
                "CREATE TABLE effects (id bigint PRIMARY KEY)",
            )
            in_one = changes(
                f"public.{quoted}", batch_size=10, batch_timeout_s=1.0, group_by=["name"]
            )
            await declare(settings, receiver, in_one, "all")
            async with streaming(settings, receiver):
                three = "SELECT n, 'x' FROM generate_series(1, 3) n"
                await execute(settings, f"INSERT INTO {quoted} {three}")
                await receiver.until(lambda: len(receiver.requests) >= 1)
                await until(lambda: noted(settings))
            return receiver.requests[0].batch_id

    return Rows(settings, asyncio.run(scenario()), table)


def noted(settings: Settings) -> bool:
    with psycopg.connect(settings.state_dsn) as connection:
        found = connection.execute("SELECT FROM triggerkit.deliveries WHERE status = 200")
        return found.fetchone() is not None


def test_a_row_of_a_batch_is_found_with_its_run(delivered: Rows) -> None:
    delivered.run("1", "failed", error=orjson.dumps(ERROR).decode())
    for key in ("1", "2", "3"):
        found = delivered.why("items", key)
        assert found.code == "failed"
        assert "ValueError: no such price, at /project/tasks/items.py:12 in work" in (
            found.conclusion
        )
        assert found.remedy is not None
        assert found.remedy.startswith(f"triggerkit runs replay run_{1:0>26}")
        assert f"run_{1:0>26}" in {step.run for step in found.steps}
    assert delivered.why(f"run_{1:0>26}").code == "failed"


def test_of_a_batch_the_item_that_failed_is_told_apart_from_the_others(delivered: Rows) -> None:
    delivered.run("1", "completed")
    delivered.item("2", "failed", "2", error=orjson.dumps(ERROR).decode())
    assert delivered.why("items", "1").code == "completed"
    found = delivered.why("items", "2")
    assert found.code == "failed"
    assert f"run_{2:0>26}" in found.conclusion
    # Its replay is what counts now.
    delivered.item("3", "completed", "2", replay_of=f"run_{2:0>26}")
    assert delivered.why("items", "2").code == "completed"


@pytest.mark.parametrize("delivered", ["it.ems", 'a[b:["1'], indirect=True)
def test_an_item_that_failed_is_found_whatever_its_table_is_called(
    delivered: Rows, request: pytest.FixtureRequest
) -> None:
    table = table_text("public", request.node.callspec.params["delivered"])
    delivered.run("1", "completed")
    delivered.item("2", "failed", "2", error=orjson.dumps(ERROR).decode())
    assert delivered.why(table, "1").code == "completed"
    assert delivered.why(table, "2").code == "failed"
    by_run = delivered.why(f"run_{2:0>26}")
    assert (by_run.code, by_run.subject.table, by_run.subject.key) == ("failed", table, ["2"])


def test_a_run_that_waits_says_for_what(delivered: Rows) -> None:
    delivered.run("1", "queued")
    found = delivered.why("items", "1")
    assert (found.code, found.remedy) == ("no_worker", "triggerkit worker")
    delivered.execute(
        "INSERT INTO triggerkit.queues (name, paused_at) VALUES ('default', now())",
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, tasks, slots) "
        "VALUES ('worker-1', 'host', 1, 1, '{work}', 2)",
    )
    found = delivered.why("items", "1")
    assert (found.code, found.remedy) == ("queue_paused", "triggerkit queues resume default")
    delivered.execute("UPDATE triggerkit.queues SET paused_at = NULL")
    found = delivered.why("items", "1")
    assert (found.code, found.remedy) == ("no_worker", "triggerkit worker")
    assert "host is silent" in found.conclusion
    delivered.execute("UPDATE triggerkit.workers SET tasks = '{other}'")
    with delivered.beating():
        found = delivered.why("items", "1")
    assert (found.code, found.remedy) == (
        "no_worker_for_task",
        "triggerkit worker --queue default",
    )


def test_a_run_behind_its_key_names_the_one_before_it_and_why_that_waits(delivered: Rows) -> None:
    delivered.execute(
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, tasks, slots) "
        "VALUES ('worker-1', 'host', 1, 1, '{work}', 2)"
    )
    error = orjson.dumps(ERROR).decode()
    later = "2100-01-01T00:00:00Z"
    key = {"concurrency_key": "all/1"}
    delivered.run("0", "retrying", idempotency_key="b", scheduled_at=later, error=error, **key)
    delivered.run("1", "queued", blocked=True, **key)
    found = delivered.why("items", "1")
    assert found.code == "key_held"
    assert "because ValueError: no such price" in found.conclusion
    assert found.remedy is not None
    assert found.remedy.startswith(f"triggerkit runs cancel run_{0:0>26}")
    found = delivered.why(f"run_{0:0>26}")
    assert found.code == "retrying"
    assert "retry at 2100-01-01" in found.conclusion
    assert "tasks/items.py:12" in found.conclusion


def test_the_effect_itself_is_looked_at_where_the_task_says_how(delivered: Rows) -> None:
    @task(name="work", verify=IN_STEP, on=rows("items", name="all"))
    def work(change: Change[dict[str, Any]]) -> None: ...

    delivered.run("1", "completed")
    found = delivered.why("items", "1", tasks=(work,))
    assert (found.code, found.remedy) == ("effect_missing", "triggerkit verify work --fix")
    delivered.execute("INSERT INTO effects VALUES (1)", "UPDATE items SET name = '' WHERE id = 2")
    assert delivered.why("items", "1", tasks=(work,)).code == "up_to_date"
    assert delivered.why("items", "2", tasks=(work,)).code == "no_text"


def test_the_api_gives_the_same_answer(delivered: Rows, settings: Settings) -> None:
    delivered.run("1", "failed", error=orjson.dumps(ERROR).decode())
    with api(settings) as site:
        found = site.get("/why?table=public.items&key=1")
        assert set(found) == {"subject", "conclusion", "code", "remedy", "steps", "searched_from"}
        assert (found["code"], found["searched_from"]) == ("failed", 1)
        assert site.get(f"/why?run=run_{1:0>26}")["code"] == "failed"
        assert site.get("/why?position=2")["subject"]["key"] == ["2"]
        assert site.call("GET", "/why?table=items&key=1&key=2").status == 422
        assert site.call("GET", "/why?table=items").status == 422
        assert site.call("GET", "/why?position=99").status == 404
