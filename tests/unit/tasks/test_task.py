"""`@task`: the function stays a function, and what cannot work is refused when it is declared."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import orjson
import pytest
from pydantic import BaseModel

from triggerkit import UNCHANGED, Change, Handle, Metadata, Retry, Task, rows, task
from triggerkit.errors import ConfigurationError, DuplicateTask, InvalidPayload
from triggerkit.tasks.declare import declared


class Post(BaseModel):
    """A row."""

    id: int
    title: str | None = None


@dataclass
class Order:
    """A payload of its own."""

    number: int


@pytest.fixture(autouse=True)
def tasks() -> Iterator[dict[str, Task[Any, Any, Any]]]:
    """The declared tasks, put back after the test."""
    before = dict(declared)
    declared.clear()
    yield declared
    declared.clear()
    declared.update(before)


def change(post_id: int = 1, **metadata: Any) -> Change[Post]:
    """One change of a post."""
    named: dict[str, Any] = {
        "table_schema": "public",
        "table_name": "posts",
        "record_pks": (str(post_id),),
    }
    return Change(Post(id=post_id, title="One"), None, "insert", Metadata(**named, **metadata))


def test_a_direct_call_runs_the_function_in_place() -> None:
    @task
    def double(order: Order, offset: int = 0) -> int:
        """Twice."""
        return order.number * 2 + offset

    @task(queue="slow")
    async def triple(order: Order) -> int:
        return order.number * 3

    assert double(Order(2)) == 4
    assert double(Order(2), offset=1) == 5
    assert asyncio.run(triple(Order(2))) == 6
    assert (double.name, double.__doc__) == ("double", "Twice.")
    assert list(inspect.signature(double).parameters) == ["order", "offset"]


def test_names_queues_and_attempts_have_defaults_and_can_be_chosen(
    tasks: dict[str, Task[Any, Any, Any]],
) -> None:
    @task
    def plain(order: Order) -> None: ...

    @task(name="shop.order-paid", queue="mail", retry=7)
    def chosen(order: Order) -> None: ...

    assert tasks == {"plain": plain, "shop.order-paid": chosen}
    assert (plain.queue, plain.retry, plain.path) == ("default", Retry(), "/api/plain")
    assert (chosen.queue, chosen.retry.max_attempts) == ("mail", 7)
    assert chosen.path == "/api/shop.order-paid"
    assert (chosen.new_run({"number": 1}).max_attempts, repr(plain)) == (7, "<task plain>")


def test_the_path_of_a_route_has_dashes() -> None:
    @task
    def create_embedding_for_post(batch: list[Change[Post]]) -> None: ...

    assert create_embedding_for_post.path == "/api/create-embedding-for-post"


def test_two_functions_with_one_name_are_refused_naming_both_places() -> None:
    @task(name="twin")
    def first(order: Order) -> None: ...

    with pytest.raises(DuplicateTask, match=r"twin.*test_task\.py:\d+ and .*test_task\.py:\d+"):

        @task(name="twin")
        def second(order: Order) -> None: ...


def test_two_tasks_of_one_name_that_a_factory_makes_are_refused() -> None:
    def follow(table: str) -> Task[Any, Any, Any]:
        @task(on=rows(table))
        def index(change: Change[Post]) -> None: ...

        return index

    first = follow("public.posts")
    said = r"two tasks are named 'index'.*test_task\.py:\d+ was called twice.*@task\(name=\.\.\.\)"
    with pytest.raises(DuplicateTask, match=said):
        follow("public.orders")
    assert declared["index"] is first


def test_a_factory_that_names_its_tasks_makes_several() -> None:
    def follow(table: str) -> Task[Any, Any, Any]:
        @task(name=f"index.{table}", on=rows(table))
        def index(change: Change[Post]) -> None: ...

        return index

    made = [follow("posts"), follow("orders")]
    assert [declared[f"index.{table}"] for table in ("posts", "orders")] == made


def test_two_modules_that_call_one_factory_are_told_of_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {
        "shared_factory": "from triggerkit import task\ndef make():\n    @task\n"
        "    def shared(order: dict) -> None: ...\n    return shared\n",
        "calls_once": "from shared_factory import make\nmade = make()\n",
        "calls_again": "from shared_factory import make\nmade = make()\n",
    }
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("calls_once")
    with pytest.raises(DuplicateTask, match=r"shared_factory\.py:3 was called twice"):
        importlib.import_module("calls_again")


@pytest.mark.parametrize("again", ["reload", "import"])
def test_a_module_imported_again_declares_its_tasks_anew(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from triggerkit import task\n@task\ndef reloaded(order: dict) -> None: ...\n"
    (tmp_path / "imported_again.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("imported_again")
    first = module.reloaded
    if again == "reload":
        module = importlib.reload(module)
    else:
        del sys.modules["imported_again"]
        module = importlib.import_module("imported_again")
    del sys.modules["imported_again"]
    assert declared["reloaded"] is module.reloaded is not first


@pytest.mark.parametrize("name", ["", "1st", "a b", "a/b", "é", "x" * 81, "a\n"])
def test_names_that_cannot_stand_in_a_path_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a"):
        task(name=name or " ")(lambda order: None)
    with pytest.raises(ConfigurationError, match="is not a"):
        task(name="fine", queue=name)(lambda order: None)


def test_options_that_do_not_fit_the_function_are_refused() -> None:
    def one(change: Change[Post]) -> None: ...

    def plain(order: Order) -> None: ...

    with pytest.raises(ConfigurationError, match="batch_size needs a parameter that is a list"):
        task(batch_size=10)(one)
    with pytest.raises(ConfigurationError, match="on= sends changes"):
        task(on=rows("public.posts"))(plain)
    for retry in (0, -1):
        with pytest.raises(ConfigurationError, match="max_attempts"):
            task(retry=retry)(one)


def test_on_takes_the_name_and_the_batch_size_of_its_task() -> None:
    @task(on=rows("public.posts"), batch_size=256)
    def many(batch: list[Change[Post]]) -> None: ...

    @task(on=rows("public.posts"))
    def single(change: Change[Post]) -> None: ...

    assert many.on is not None
    assert single.on is not None
    assert (many.on.name, many.on.batch_size) == ("many", 256)
    assert (single.on.name, single.on.batch_size) == ("single", 500)


def test_trigger_takes_what_a_call_takes() -> None:
    @task
    def pay(order: Order) -> None: ...

    @task
    def index(change: Change[Post]) -> None: ...

    @task
    def index_all(batch: list[Change[Post]]) -> None: ...

    assert orjson.loads(pay._run(Order(1), {}).payload) == {"number": 1}
    [payload, batch] = [index._run(change(), {}), index_all._run([change(1), change(2)], {})]
    assert index.payload_type.parse(orjson.loads(payload.payload)) == change()
    assert (batch.items, len(orjson.loads(batch.payload)["data"])) == (2, 2)


def test_a_change_with_an_unchanged_column_is_triggered_as_it_was() -> None:
    @task
    def index(change: Change[Post]) -> None: ...

    partial = change(unchanged=("title",))
    partial.record.title = UNCHANGED  # type: ignore[assignment]
    run = index._run(partial, {})
    assert index.payload_type.parse(orjson.loads(run.payload)).record.title is UNCHANGED


@pytest.mark.parametrize("payload", [{"number": "x"}, {}, [], None, 3])
def test_a_payload_that_does_not_fit_is_refused_before_anything_is_sent(payload: Any) -> None:
    @task
    def pay(order: Order) -> None: ...

    with pytest.raises(InvalidPayload):
        pay.new_run(payload)


@pytest.mark.parametrize("value", [2**70, "\ud800", object()])
def test_a_payload_that_is_no_json_is_refused(value: Any) -> None:
    @task
    def anything(payload: dict[str, Any]) -> None: ...

    with pytest.raises(InvalidPayload):
        anything._run({"value": value}, {})


@pytest.mark.parametrize("payload", [{"data": []}, {"data": 3}, {"data": [{}]}, [], None])
def test_a_batch_is_a_list_of_messages(payload: Any) -> None:
    @task
    def index_all(batch: list[Change[Post]]) -> None: ...

    with pytest.raises(InvalidPayload):
        index_all.new_run(payload)


def test_arguments_that_a_run_cannot_carry_are_refused() -> None:
    @task
    def pay(order: Order, urgent: bool = False) -> None: ...

    @task
    def tidy() -> None: ...

    trigger: Any = pay.trigger
    with pytest.raises(ConfigurationError, match="'urgent' is not an option of a trigger"):
        trigger(Order(1), urgent=True)
    with pytest.raises(TypeError, match="positional"):
        trigger(Order(1), True)
    trigger = tidy.trigger
    with pytest.raises(TypeError, match="tidy takes no payload"):
        trigger(Order(1))


def test_types_reach_the_caller() -> None:
    @task
    def pay(order: Order) -> int:
        return order.number

    @task(retry=2)
    async def pay_later(order: Order) -> str:
        return ""

    async def only_checked() -> None:
        assert_type(pay(Order(1)), int)
        assert_type(await pay_later(Order(1)), str)
        assert_type(pay.trigger(Order(1)), Handle[int])
        assert_type(await pay_later.atrigger(Order(1)), Handle[str])
        pay.trigger("no order")  # type: ignore[arg-type]
        pay.trigger()  # type: ignore[call-arg]

    assert inspect.iscoroutinefunction(only_checked)
    assert isinstance(pay, Task)
    assert isinstance(pay_later, Task)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": sys.maxsize},
        {"max_attempts": float("inf")},
        {"max_attempts": float("nan")},
        {"max_attempts": 2.5},
        {"max_attempts": True},
        {"max_attempts": 0},
        {"factor": float("nan")},
        {"min_delay_s": float("nan")},
        {"max_delay_s": float("inf")},
        {"max_delay_s": 1e15},
        {"max_delay_s": -1},
    ],
    ids=str,
)
def test_a_retry_that_no_run_could_have_is_refused_where_it_is_declared(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError, match="Retry"):
        Retry(**wrong)
