"""What a trigger may ask for, each option on real servers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
import psycopg
import pytest
from typing_extensions import TypedDict

from tests.integration.run_state import RunState
from tests.integration.worker_thread import Order, working
from triggerkit import Debounce, Handle, current_run, task
from triggerkit.errors import ConfigurationError, InvalidPayload


@dataclass
class Point:
    """A payload."""

    x: int
    at: datetime


class Named(TypedDict):
    """A payload."""

    name: str


@task(name="triggered")
def process(order: Order) -> int:
    """Returns the order's number."""
    return order.number


def output(row: dict[str, Any]) -> Any:
    return orjson.loads(row["output"])


def test_payloads_of_every_type_arrive_as_that_type(triggers: RunState) -> None:
    seen: dict[str, Any] = {}

    @task
    def model(order: Order) -> None:
        seen["model"] = order

    @task
    async def data(point: Point) -> None:
        seen["data"] = point

    @task
    def typed(named: Named) -> None:
        seen["typed"] = named

    @task()
    def free(given: dict[str, Any]) -> None:
        seen["free"] = given

    @task
    async def nothing() -> None:
        seen["nothing"] = None

    point = Point(1, datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
    handles = [
        model.trigger(Order(number=1)),
        data.trigger(point),
        typed.trigger({"name": "ada"}),
        free.trigger({"any": [1, None]}),
        nothing.trigger(),
    ]
    with working(triggers, model, data, typed, free, nothing):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert seen == {
        "model": Order(number=1),
        "data": point,
        "typed": {"name": "ada"},
        "free": {"any": [1, None]},
        "nothing": None,
    }


def test_triggering_from_sync_and_async_code_one_and_many(triggers: RunState) -> None:
    async def several() -> list[Handle]:
        one = await process.atrigger(Order(number=3))
        return [one, *await process.atrigger_many([Order(number=4), Order(number=5)])]

    handles = [process.trigger(Order(number=0))]
    handles += process.trigger_many([Order(number=1), Order(number=2)])
    handles += asyncio.run(several())
    assert process.trigger_many([]) == []
    with working(triggers, process):
        rows = triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert [output(row) for row in rows] == [0, 1, 2, 3, 4, 5]


def test_many_are_accepted_in_one_round_trip_for_each_thousand(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    turns: list[int] = []
    execute = psycopg.AsyncConnection.execute
    pipeline = psycopg.AsyncConnection.pipeline

    def counted(self: Any, query: Any, *given: Any, **more: Any) -> Any:
        statements.append(query)
        return execute(self, query, *given, **more)

    def one_turn(self: Any) -> Any:
        turns.append(len(statements))
        return pipeline(self)

    process.trigger_many([])
    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    monkeypatch.setattr(psycopg.AsyncConnection, "pipeline", one_turn)
    handles = process.trigger_many([Order(number=n) for n in range(2500)])
    assert len({handle.id for handle in handles}) == 2500
    # Of one turn each: BEGIN, a bound of the wait, the keys' locks, the runs, what goes on, COMMIT.
    assert [later - one for one, later in pairwise(turns)] == [6, 6]
    assert statements.count("COMMIT") == len(turns) == 3
    transactions = "SELECT count(DISTINCT xmin::text)::int FROM triggerkit.runs"
    assert triggers.rows(transactions) == [3]
    order = "SELECT (payload::jsonb ->> 'number')::int FROM triggerkit.runs ORDER BY rank"
    assert triggers.rows(order) == list(range(2500))
    assert triggers.pushed("triggered") == triggers.rows(
        "SELECT id FROM triggerkit.runs ORDER BY seq"
    )


def test_a_payload_that_does_not_fit_or_is_no_json_makes_no_run(triggers: RunState) -> None:
    @task
    def free(given: dict[str, Any]) -> None: ...

    wrong: Any = {"number": "many"}
    with pytest.raises(InvalidPayload, match="number: Input should be a valid integer"):
        process.trigger(wrong)
    refused = r"value: (cannot be written as JSON|would not arrive)"
    for value in (object(), "\ud800", 2**70, "a\x00b"):
        if value == "a\x00b":
            free.trigger({"value": value})
            continue
        with pytest.raises(InvalidPayload, match=refused):
            free.trigger({"value": value})
    assert len(triggers.statuses()) == 1


@pytest.mark.parametrize(
    "delay", [1.0, timedelta(seconds=1), "a time"], ids=["seconds", "timedelta", "datetime"]
)
def test_a_delayed_run_starts_then_and_not_before(triggers: RunState, delay: Any) -> None:
    with working(triggers, process):
        started = time.monotonic()
        given = datetime.now(UTC) + timedelta(seconds=1) if delay == "a time" else delay
        handle = process.trigger(Order(number=1), delay=given)
        assert triggers.run(handle.id)["status"] == "delayed"
        triggers.wait_for_status("completed", handle.id)
        assert 0.9 < time.monotonic() - started < 5


def test_a_time_in_the_past_is_now_and_one_without_zone_is_refused(triggers: RunState) -> None:
    handle = process.trigger(Order(number=1), delay=datetime(2020, 1, 1, tzinfo=UTC))
    assert triggers.run(handle.id)["status"] == "queued"
    with pytest.raises(ConfigurationError, match="needs a time with a time zone"):
        process.trigger(Order(number=1), delay=datetime(2020, 1, 1))
    # With a ttl, or in another zone, it would be stored as one that Python cannot read.
    late = datetime(9999, 12, 31, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match="before the year 9000"):
        process.trigger(Order(number=1), delay=late)
    with pytest.raises(ConfigurationError, match="before the year 9000"):
        handle.reschedule(late)


def test_a_run_that_did_not_start_in_its_ttl_expires_and_frees_its_key(
    triggers: RunState,
) -> None:
    @task(ttl=timedelta(seconds=1))
    def impatient(order: Order) -> None: ...

    asked = process.trigger(Order(number=1), ttl=0.5, concurrency_key="row")
    waiting = process.trigger(Order(number=2), concurrency_key="row")
    own = impatient.trigger(Order(number=1))

    @task
    def other() -> None: ...

    with working(triggers, other):
        triggers.wait_for_status("expired", asked.id, own.id)
    assert triggers.pushed("triggered") == [asked.id, waiting.id]
    with working(triggers, process):
        triggers.wait_for_status("completed", waiting.id)
    assert triggers.run(asked.id)["attempt"] == 0


def test_a_debounced_run_takes_the_last_payload_once_its_key_rests(triggers: RunState) -> None:
    with working(triggers, process):
        debounce = Debounce(key="cart", delay=1.0)
        handles = [process.trigger(Order(number=n), debounce=debounce) for n in range(5)]
        assert len({handle.id for handle in handles}) == 1
        assert [handle.duplicate for handle in handles] == [False] + [True] * 4
        [row] = triggers.wait_for_status("completed", handles[0].id)
        assert output(row) == 4
        again = process.trigger(Order(number=9), debounce=debounce)
        assert again.id != handles[0].id


def test_a_key_that_never_rests_runs_at_its_maximum(triggers: RunState) -> None:
    debounce = Debounce(key="cart", delay=60, maximum=timedelta(seconds=90))
    first = process.trigger(Order(number=1), debounce=debounce)
    made = "UPDATE triggerkit.runs SET created_at = now() - interval '80 seconds'"
    triggers.connection.execute(made)
    process.trigger(Order(number=2), debounce=debounce)
    wait = "SELECT extract(epoch FROM scheduled_at - now())::float FROM triggerkit.runs"
    assert 8 < triggers.rows(wait)[0] <= 10
    assert orjson.loads(triggers.run(first.id)["payload"]) == {"number": 2}


def test_runs_of_one_concurrency_key_execute_in_order_and_never_together(
    triggers: RunState,
) -> None:
    spans: list[tuple[int, float, float]] = []

    @task
    def slow(order: Order) -> None:
        started = time.monotonic()
        time.sleep(0.05)
        spans.append((order.number, started, time.monotonic()))

    handles = [slow.trigger(Order(number=n), concurrency_key="one") for n in range(5)]
    with working(triggers, slow):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert [number for number, _, _ in spans] == list(range(5))
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(spans))


def test_a_run_of_higher_priority_starts_first(triggers: RunState) -> None:
    done: list[str] = []

    @task
    def usual(name: Named) -> None:
        done.append(name["name"])

    names = ["first", "second", "urgent"]
    handles = [usual.trigger({"name": n}, priority=60 if n == "urgent" else 0) for n in names]
    with working(triggers, usual, threads=1):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    assert done == ["urgent", "first", "second"]


def test_tags_and_metadata_are_kept_and_changed_while_the_run_executes(
    triggers: RunState,
) -> None:
    shown: list[Any] = []

    @task
    def importing(order: Order) -> None:
        run = current_run()
        run.set_metadata(done=run.metadata["total"] // 2)
        run.add_tags("half", "import")
        with psycopg.connect(triggers.settings.state_dsn) as outside:
            query = "SELECT status, tags, metadata FROM triggerkit.runs WHERE id = %s"
            shown.append(outside.execute(query, [run.id]).fetchone())

    handle = importing.trigger(Order(number=1), tags=["import"], metadata={"total": 10})
    before = triggers.run(handle.id)
    assert (before["tags"], before["metadata"]) == (["import"], {"total": 10})
    with working(triggers, importing):
        triggers.wait_for_status("completed", handle.id)
    assert shown == [("executing", ["import", "half"], {"total": 10, "done": 5})]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dealy": 1}, "'dealy' is not an option of a trigger"),
        ({"delay": -1}, "delay= is a time in seconds"),
        ({"ttl": "soon"}, "ttl= is a time in seconds"),
        ({"priority": 10**12}, "priority= is a number of seconds"),
        ({"priority": "high"}, "priority= is a number of seconds"),
        ({"tags": ["x"] * 11}, "at most 10 tags"),
        ({"metadata": {"a": object()}}, "metadata must be JSON"),
        ({"concurrency_key": ""}, "a key must be a non-empty string"),
        ({"idempotency_ttl": 5}, "need idempotency_key="),
        ({"debounce": Debounce("k", 1), "delay": 1}, "leave out the others"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        process.trigger(Order(number=1), **options)
