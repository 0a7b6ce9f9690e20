"""What goes in comes out: what a trigger or a row accepts, the task gets equal."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    create_model,
    field_validator,
)
from typing_extensions import TypedDict

from tests.unit.tasks.shapes import ARRIVES, AS_TEXT, REFUSED, Cat, Dog, values
from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED, Change, Metadata
from triggerkit.tasks.payload.difference import difference
from triggerkit.tasks.payload.encode import encode
from triggerkit.tasks.payload.payload_type import PayloadType, read_envelopes
from triggerkit.testing import fake_message

many = settings(
    max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
some = settings(many, max_examples=500)


def taking(annotation: Any) -> PayloadType:
    def work(payload: Any) -> None: ...

    work.__annotations__["payload"] = annotation
    return PayloadType(work)


def shown(value: Any) -> Any:
    """`value` in a form that is equal only if all of it is; NaN equals NaN."""
    if isinstance(value, BaseModel):
        named = {name: getattr(value, name) for name in type(value).model_fields}
        return type(value), shown({**named, **(value.model_extra or {})})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), shown(
            {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        )
    if isinstance(value, Mapping):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return type(value), [shown(item) for item in value]
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return type(value), shown(value.get_secret_value())
    if isinstance(value, datetime | time):
        return type(value), value.isoformat()
    return repr(value) if isinstance(value, float) else (type(value), value)


@pytest.mark.timeout(600)
@many
@given(values(ARRIVES, strict=True) | values([*ARRIVES, *AS_TEXT * 3]))
def test_what_is_triggered_arrives(typed: tuple[Any, Any]) -> None:
    annotation, value = typed
    payload_type = taking(annotation)
    written = payload_type.write(value)
    orjson.loads(written)
    assert shown(payload_type.read(written)) == shown(value)


@pytest.mark.timeout(600)
@some
@given(values([*ARRIVES, *REFUSED * 4]))
def test_what_cannot_arrive_is_refused_by_the_name_of_its_field(typed: tuple[Any, Any]) -> None:
    annotation, value = typed
    payload_type = taking(annotation)
    refused: list[FieldProblem] = []
    written = b""
    try:
        written = payload_type.write(value)
    except InvalidPayload as error:
        refused = error.problems
    if refused:
        assert all(problem.loc for problem in refused)
    else:
        typed_value = TypeAdapter(annotation).validate_python(value)
        assert shown(payload_type.read(written)) == shown(typed_value)


@pytest.mark.timeout(600)
@some
@given(values(ARRIVES))
def test_a_row_that_the_door_accepts_is_the_rows_that_the_task_gets(typed: tuple[Any, Any]) -> None:
    annotation, value = typed
    if not isinstance(value, BaseModel):
        return
    metadata = Metadata("public", "posts", ("1",))
    sent: Change[Any] = Change(value, None, "insert", metadata)
    for kind in (annotation, annotation | None):
        payload_type = taking(list[Change[kind]])  # type: ignore[valid-type]
        message = payload_type.write(sent)
        at_the_door = payload_type.changes(read_envelopes(b'{"data":[%b]}' % message))
        assert shown(at_the_door[0].record) == shown(value)
        assert shown(payload_type.read(message)) == shown(sent)


class Partial(BaseModel):
    """A model of which a trigger may set a part."""

    id: int
    title: str | None = None
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def test_fields_that_were_not_set_are_not_set_where_the_task_reads_them() -> None:
    payload_type = taking(Partial)
    sent = Partial(id=1)
    read = payload_type.read(payload_type.write(sent))
    assert read == sent
    assert "title" not in read.model_fields_set


def test_constraints_of_a_parameter_hold() -> None:
    for number in (-5, 0):
        with pytest.raises(InvalidPayload):
            taking(Annotated[int, Field(gt=0)]).write(number)
    assert taking(Annotated[list[Change[Partial]], "noted"]).shape == "batch"


@pytest.mark.parametrize(
    ("value", "loc"),
    [
        ({"at": {"day": datetime(2026, 1, 1)}}, ("at", "day")),
        ({"all": [1, math.nan]}, ("all", 1)),
        ({"pair": (1, 2)}, ("pair",)),
        ({"text": "\ud800"}, ("text",)),
        ({"deep": [{"number": 2**70}]}, ("deep", 0, "number")),
        ({"what": object()}, ("what",)),
    ],
)
def test_what_a_dict_cannot_bring_back_is_refused_where_it_is(
    value: dict[str, Any], loc: tuple[str | int, ...]
) -> None:
    with pytest.raises(InvalidPayload) as caught:
        taking(dict[str, Any]).write(value)
    assert [problem.loc for problem in caught.value.problems] == [loc]


def test_texts_of_dates_fit_a_strict_model_as_json_does() -> None:
    kind = create_model("Strict", __config__=ConfigDict(strict=True), at=(datetime, ...))
    read = taking(kind).read(taking(kind).write({"at": "2026-01-01T00:00:00Z"}))
    assert read.at == datetime(2026, 1, 1, tzinfo=UTC)
    row = fake_message({"at": "2026-01-01T00:00:00Z"}, key=1)
    assert taking(Change[kind]).parse(row).record == read


class Row(BaseModel):
    """A row with a validator that fails in its own way."""

    id: int
    title: str = ""

    @field_validator("title")
    @classmethod
    def known(cls, title: str) -> str:
        """Look something up that is not there."""
        return {"": "", "good": "good"}[title]


@pytest.mark.parametrize("annotation", [Row, Change[Row], list[Change[Row]]])
def test_another_error_of_a_validator_is_an_invalid_payload(annotation: Any) -> None:
    payload_type = taking(annotation)
    row = {"id": 1, "title": "bad"}
    with pytest.raises(InvalidPayload, match="a validator of its type raised KeyError") as caught:
        payload_type.parse(row if annotation is Row else fake_message(row))
    assert "bad" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Row | None, Annotated[Row, "noted"], Row | Partial])
def test_a_delete_of_one_of_several_types_keeps_its_key(annotation: Any) -> None:
    class Whole(BaseModel):
        id: int
        size: int

    for kind in (annotation, Whole | annotation):
        message = fake_message({"id": 7}, action="delete")
        assert taking(Change[kind]).parse(message).record.id == 7  # type: ignore[valid-type]


def test_columns_of_a_partial_row_keep_their_constraints_and_aliases() -> None:
    class Aliased(BaseModel):
        id: int = Field(validation_alias=AliasChoices("post_id", "id"))
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]
        body: str

    row = {"post_id": 1, "pet": {"kind": "dog", "name": "Rex"}}
    message = fake_message(row, action="update", key=1, unchanged=("body",))
    record = taking(Change[Aliased]).parse(message).record
    assert (record.id, record.pet, record.body) == (1, Dog(kind="dog", name="Rex"), UNCHANGED)

    class Limited(TypedDict):
        id: Annotated[int, Field(gt=0)]
        body: str

    with pytest.raises(InvalidPayload):
        taking(Change[Limited]).parse(fake_message({"id": -5}, action="delete"))


def test_a_row_nested_more_deeply_than_pydantic_reads_is_no_poison() -> None:
    message = encode(fake_message({"id": 1, "tree": "[]"}))
    nested = message.replace(b'"[]"', b"[" * 400 + b"]" * 400)
    tree = taking(Change[dict[str, Any]]).read(nested).record["tree"]
    assert msgspec.json.encode(tree) == b"[" * 400 + b"]" * 400


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),
        datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo("America/New_York")),
        datetime.max.replace(tzinfo=ZoneInfo("America/New_York")),
    ],
    ids=["first", "second", "missing", "new york", "last"],
)
def test_a_time_in_the_hour_a_zone_repeats_or_leaves_out_arrives(at: datetime) -> None:
    class Event(BaseModel):
        at: datetime

    for kind, value in ((datetime, at), (Event, Event(at=at)), (dict[str, datetime], {"at": at})):
        payload_type = taking(kind)
        assert difference(payload_type.read(payload_type.write(value)), value) is None
    [read] = taking(list[datetime]).read(taking(list[datetime]).write([at]))
    assert (read.replace(tzinfo=None), read.utcoffset()) == (
        at.replace(tzinfo=None, fold=0),
        at.utcoffset(),
    )


def by_name(cats: list[Cat]) -> dict[str, int]:
    return {f"cat {number}": cat.lives for number, cat in enumerate(cats)}


def from_names(lives: dict[str, int]) -> list[Cat]:
    return [Cat(lives=number) for number in lives.values()]


AT = Metadata("public", "posts", ("1",))
OWN_FORMS: list[tuple[Any, Any]] = [
    (Json[dict[str, int]], {"a": 1}),
    (Json[list[datetime]], [datetime(2026, 1, 1)]),
    (Json[list[Cat]], [Cat(lives=3)]),
    (Json[dict[str, list[int]]], {"a": []}),
    (Json[Any], [1, None]),  # type: ignore[misc]
    (list[Json[list[int]]], [[1], []]),
    (
        Annotated[list[str], BeforeValidator(lambda v: v.split(",")), PlainSerializer(",".join)],
        ["a", "b"],
    ),
    (
        Annotated[
            dict[str, int],
            BeforeValidator(lambda v: dict.fromkeys(v, 1)),
            PlainSerializer(lambda v: sorted(v)),
        ],
        {"a": 1, "b": 1},
    ),
    (Annotated[list[Cat], BeforeValidator(from_names), PlainSerializer(by_name)], [Cat(lives=3)]),
    (
        Annotated[
            set[int],
            BeforeValidator(lambda v: {n for n in range(8) if v >> n & 1}),
            PlainSerializer(lambda v: sum(1 << n for n in v)),
        ],
        {0, 2},
    ),
    (
        Annotated[list[int], BeforeValidator(lambda v: v or []), PlainSerializer(lambda _: None)],
        [],
    ),
    (
        Annotated[
            list[int],
            BeforeValidator(lambda v: [v[0]] * v[1]),
            PlainSerializer(lambda v: [v[0], len(v)]),
        ],
        [7, 7, 7],
    ),
    # Read in no other form than the type's own one, it is written as that is.
    (Annotated[list[str], PlainSerializer(",".join)], ["a", "b"]),
    (Annotated[dict[str, int], PlainSerializer(lambda v: len(v))], {"a": 1}),
]


@pytest.mark.parametrize(("annotation", "value"), OWN_FORMS)
def test_a_list_or_dict_that_its_type_writes_in_another_form_arrives(
    annotation: Any, value: Any
) -> None:
    model: Any = create_model("Made", held=(annotation, ...))
    plain = dataclasses.make_dataclass("Plain", [("held", annotation)])
    for kind, sent in (
        (model, model.model_construct(held=value)),
        (plain, plain(value)),
        (Change[model], Change(model.model_construct(held=value), None, "insert", AT)),
        (list[model], [model.model_construct(held=value)]),
    ):
        payload_type = taking(kind)
        assert shown(payload_type.read(payload_type.write(sent))) == shown(sent)
