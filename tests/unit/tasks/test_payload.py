"""A task's payload: its shape from the annotation, its checks, and what a partial row becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from triggerkit import UNCHANGED, Change
from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.tasks.payload.payload_type import PayloadType


class Model(BaseModel):
    """A row as a pydantic model; every column but the key has a default."""

    id: int
    title: str | None = None
    size: Annotated[int, Field(ge=0)] = 0


class Strict(BaseModel):
    """A row with columns that a delete does not carry."""

    id: int = Field(alias="post_id")
    title: str
    size: int = Field(ge=0)


@dataclass(slots=True)
class Data:
    """A row as a dataclass."""

    id: int
    title: str


class Typed(TypedDict):
    """A row as a TypedDict."""

    id: int
    title: str
    note: NotRequired[str]


def message(record: Any, action: str = "insert", **metadata: Any) -> dict[str, Any]:
    """A message as it arrives."""
    named = {"table_schema": "public", "table_name": "posts", "record_pks": ["1"], **metadata}
    return {"record": record, "changes": None, "action": action, "metadata": named}


def payload_type(annotation: Any) -> PayloadType:
    def work(payload: Any) -> None: ...

    work.__annotations__["payload"] = annotation
    return PayloadType(work)


def parse(annotation: Any, raw: Any) -> Any:
    return payload_type(annotation).parse(raw)


def problems(annotation: Any, raw: Any) -> list[FieldProblem]:
    with pytest.raises(InvalidPayload) as caught:
        parse(annotation, raw)
    return caught.value.problems


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (Change, "change"),
        (Change[Model], "change"),
        (list[Change[Model]], "batch"),
        (list[Change[Any]], "batch"),
        (Model, "plain"),
        (list[Model], "plain"),
        (dict[str, Any], "plain"),
        (list, "plain"),
    ],
)
def test_the_annotation_tells_the_shape(annotation: Any, shape: str) -> None:
    assert payload_type(annotation).shape == shape


def test_without_an_annotation_a_payload_is_any_object() -> None:
    def work(payload): ...  # type: ignore[no-untyped-def]

    assert PayloadType(work).parse({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("annotation", [Model, Data, Typed, dict[str, Any]])
def test_a_record_becomes_what_the_annotation_names(annotation: Any) -> None:
    record = {"id": 1, "title": "One"}
    for named in (annotation, Change[annotation]):
        whole = named is not annotation
        parsed = parse(named, message(record) if whole else record)
        row = parsed.record if whole else parsed
        assert isinstance(row, annotation if annotation in (Model, Data) else dict)
        assert (row if isinstance(row, dict) else {"id": row.id, "title": row.title}) == record


def test_a_change_carries_action_changes_and_metadata() -> None:
    raw = message({"id": 1}, "update", position=7, later="kept", xid=2**40)
    raw["changes"] = {"title": "Old"}
    change = parse(Change[Model], raw)
    assert (change.action, change.changes) == ("update", {"title": "Old"})
    assert (change.metadata.position, change.metadata.xid) == (7, 2**40)
    assert change.key == 'public.posts:["1"]'


def test_problems_name_the_path_of_each_field() -> None:
    raw = message({"id": "x", "size": -1})
    assert [p.loc for p in problems(Change[Model], raw)] == [("record", "id"), ("record", "size")]
    assert [p.loc for p in problems(Model, {})] == [("id",)]
    raw["action"] = "upsert"
    assert [p.loc for p in problems(Change[Model], raw)] == [("action",)]
    raw["action"] = "insert"
    del raw["metadata"]["table_name"]
    assert [p.loc for p in problems(Change[Model], raw)] == [("metadata", "table_name")]
    raw["metadata"] |= {"table_name": "posts", "record_pks": ["1", None]}
    assert [p.loc for p in problems(Change[Model], raw)] == [("metadata", "record_pks", 1)]


@pytest.mark.parametrize("raw", [None, 1, "text", [], {}, {"record": 1}])
def test_what_is_no_message_is_an_invalid_payload(raw: Any) -> None:
    assert problems(Change[Model], raw)


def test_problems_never_carry_the_values() -> None:
    raw = message({"id": "a secret value"})
    assert "secret" not in str(problems(Change[Model], raw))


@pytest.mark.parametrize("annotation", [Strict, Data, Typed])
def test_a_delete_may_carry_the_key_alone(annotation: Any) -> None:
    key = "post_id" if annotation is Strict else "id"
    record = parse(Change[annotation], message({key: "1", "unknown": 2}, "delete")).record
    if isinstance(record, dict):
        assert record == {"id": 1}
    else:
        assert record.id == 1
        assert not hasattr(record, "title")


def test_what_a_delete_carries_is_checked() -> None:
    raw = message({"post_id": "x", "size": -1}, "delete")
    locs = [p.loc for p in problems(Change[Strict], raw)]
    assert locs == [("record", "post_id"), ("record", "size")]
    assert problems(Change[Data], message({"id": "x"}, "delete"))[0].loc == ("record", "id")


def test_an_insert_must_carry_the_whole_row() -> None:
    locs = [p.loc for p in problems(Change[Data], message({"id": 1}))]
    assert locs == [("record", "title")]


@pytest.mark.parametrize("annotation", [Model, Data, Typed, dict[str, Any]])
def test_an_unchanged_column_is_marked_whether_or_not_it_has_a_default(annotation: Any) -> None:
    raw = message({"id": 1}, "update", unchanged=["title", "not_a_field"])
    record = parse(Change[annotation], raw).record
    title = record["title"] if isinstance(record, dict) else record.title
    assert title is UNCHANGED
    assert not title


def test_beside_an_unchanged_column_defaults_and_checks_hold() -> None:
    raw = message({"id": "1"}, "update", unchanged=["title"])
    record = parse(Change[Model], raw).record
    assert (record.id, record.size) == (1, 0)
    raw["record"]["size"] = -1
    assert [p.loc for p in problems(Change[Model], raw)] == [("record", "size")]
    assert [
        p.loc for p in problems(Change[Strict], message({}, "update", unchanged=["title"]))
    ] == [
        ("record", "post_id"),
        ("record", "size"),
    ]


def test_only_a_truncate_has_no_record() -> None:
    assert parse(Change[Model], message(None, "truncate", record_pks=[])).record is None
    assert problems(Change[Model], message(None)) == [
        FieldProblem(("record",), "only a truncate has no record")
    ]


def two_parameters(a: Model, b: Model) -> None: ...


def keyword_only(*, payload: Model) -> None: ...


def any_number(*payload: Model) -> None: ...


def not_a_type(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("function", [two_parameters, keyword_only, any_number, not_a_type])
def test_a_function_that_cannot_take_a_payload_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=function.__name__):
        PayloadType(function)


def test_a_function_without_a_parameter_takes_no_payload() -> None:
    def work() -> None: ...

    assert (PayloadType(work).shape, PayloadType(work).parse({"id": 1})) == ("none", None)


def test_a_second_parameter_may_have_a_default() -> None:
    def work(payload: Model, verbose: bool = False) -> None: ...

    assert PayloadType(work).parse({"id": 1}) == Model(id=1)
