"""Declarations of triggerkit.toml: what is wrong in them is named by its path."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from triggerkit import Change, task
from triggerkit.consumers.declare.declaration import Declarations, Declared, read_file
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.tasks.registry import check_direct, declared_consumers

GOOD = """
[endpoints.local]
url = "http://127.0.0.1:3001/api/create-embedding-for-post"
headers = { Authorization = "Bearer ${SECRET}" }

[consumers.posts_push_consumer]
kind = "rows"
tables = ["posts"]
sort_by = "updated_at"
start = 2026-01-01
filters = [["author", "!=", "bot"], { column = "id", operator = "in", value = [1, 2] }]
endpoint = "local"
batch_size = 100
"""


def read(text: str, **environment: str) -> tuple[list[Declared], dict[str, str]]:
    values = tomllib.loads(text)
    consumers, endpoints = read_file(
        values.get("endpoints", {}), values.get("consumers", {}), environment
    )
    return consumers, {e.name: e.headers.get("Authorization", "") for e in endpoints}


def test_a_file_declares_consumers_and_endpoints() -> None:
    (consumer,), endpoints = read(GOOD, SECRET="s3cret")
    assert endpoints == {"local": "Bearer s3cret"}
    definition = consumer.definition
    assert (consumer.name, consumer.managed_by) == ("posts_push_consumer", "file")
    assert definition.tables == ("public.posts",)
    assert definition.start == "2026-01-01"
    assert [f.operator for f in definition.filters] == ["!=", "in"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[consumers.a]\ntables=["t"]\nbatchsize=3', "consumers.a batchsize: is not known"),
        ('[consumers.a]\ntables=["t"]\nbatch_size=0', "consumers.a batch_size: "),
        ("[consumers.a]\ntables=[]", "consumers.a tables: "),
        ('[consumers.a]\ntables=["t"]\nfilters=[["n","~",1]]', "consumers.a filters.0.operator: "),
        ('[consumers.a]\ntables=["t"]\nstart="2026"', "sort_by must name one"),
        (
            '[consumers.a]\ntables=["t"]\nbody="event"',
            "consumers.a body: 'event' is for what is pushed",
        ),
        ('[consumers.a]\ntables=["t"]\nbody="events"', "consumers.a body: Input should be"),
        (
            '[consumers.a]\ntables=["t"]\nendpoint="e"\nbody="event"\ntransform="m:f"',
            "body='event' and transform both say what is sent",
        ),
        ('[endpoints.e]\nurl="http://x"\nheader={}', "endpoints.e.header: is not known"),
        ("[endpoints.e]\nheaders={}", "endpoints.e.url: Field required"),
        ('[endpoints.e]\nurl="${NOWHERE}"', "endpoints.e.url: the variable NOWHERE is not set"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(text)
    assert problem in str(raised.value)


def test_a_variable_may_have_a_default() -> None:
    _, endpoints = read('[endpoints.e]\nurl="u"\nheaders={Authorization="${NO:-Bearer x}"}')
    assert endpoints == {"e": "Bearer x"}


def test_two_declarations_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two consumers are named 'a'"):
        Declarations([Declared("a", changes("t")), Declared("a", changes("t"), managed_by="file")])


def test_a_file_with_an_unknown_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "triggerkit.toml").write_text("[consumer.a]\ntables = []\n")
    with pytest.raises(
        ConfigurationError,
        match="unknown key 'consumer'; did you mean consumers",
    ):
        Project.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ('endpoint="e"', "without a push, which has no endpoint; leave endpoint out"),
        ("timeout_s=30", "without a push, which has no timeout_s; leave timeout_s out"),
    ],
)
def test_what_only_pushes_have_is_refused_where_there_is_none(field: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        read(f'[consumers.a]\ntables=["t"]\nvia="direct"\ntask="index"\n{field}')
    name, value = field.split("=")
    options: Any = {name: float(value) if value.isdigit() else value.strip('"')}
    if name == "timeout_s":
        with pytest.raises(ConfigurationError, match=problem):
            changes("t", via="direct", **options)


def test_a_task_is_named_only_where_its_runs_are_made_directly() -> None:
    (consumer,), _ = read('[consumers.a]\ntables=["t"]\nvia="direct"\ntask="index"')
    assert (consumer.definition.via, consumer.definition.task) == ("direct", "index")
    stored = consumer.definition.as_json()
    assert "timeout_s" not in stored
    assert ConsumerDefinition.from_json(stored) == consumer.definition
    with pytest.raises(ConfigurationError, match="task='index' works only with via='direct'"):
        read('[consumers.a]\ntables=["t"]\ntask="index"')


def test_a_task_that_gets_changes_directly_is_named_by_its_consumer() -> None:
    @task(on=changes("t", via="direct"))
    def index(batch: list[Change[dict[str, Any]]]) -> None: ...

    (consumer,) = declared_consumers({"index": index})
    assert (consumer.path, consumer.definition.task) == (None, "index")


def test_a_consumer_of_the_file_names_a_task_that_there_is_and_that_takes_changes() -> None:
    @task
    def take(number: int) -> None: ...

    (consumer,), _ = read('[consumers.a]\ntables=["t"]\nvia="direct"\ntask="index"')
    with pytest.raises(ConfigurationError, match="no task is named 'index'; known tasks: take"):
        check_direct([consumer], {"take": take})
    with pytest.raises(ConfigurationError, match="must be a Change"):
        check_direct([consumer], {"index": take})


def test_a_task_says_by_its_parameter_whether_it_takes_messages_or_events() -> None:
    @task(on=changes("t", body="event"))
    def take(event: dict[str, Any]) -> None: ...

    assert take.on is not None
    assert (take.on.body, take.on.batch_size) == ("event", 1)
    with pytest.raises(ConfigurationError, match="its parameter is the event"):

        @task(on=changes("t", body="event"))
        def index(batch: list[Change[dict[str, Any]]]) -> None: ...

    with pytest.raises(ConfigurationError, match="or body='event'"):

        @task(on=changes("t"))
        def tell(event: dict[str, Any]) -> None: ...
