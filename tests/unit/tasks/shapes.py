"""Types of every shape pydantic has, with values of theirs: made up by Hypothesis."""

from __future__ import annotations

import dataclasses
import math
import string
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pydantic.dataclasses
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    Tag,
    computed_field,
    create_model,
)
from typing_extensions import TypedDict


class Color(Enum):
    """Members by value."""

    RED = "red"
    GREEN = 2


class Level(IntEnum):
    """Members that are integers."""

    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    """One of the pets."""

    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    """The other one."""

    kind: Literal["dog"]
    name: str = Field(exclude=True)


class Computed(BaseModel, extra="forbid"):
    """What it writes has a field that it does not read."""

    width: int

    @computed_field
    def area(self) -> int:
        """The area."""
        return self.width**2


class Numbers(RootModel[list[int]]):
    """A list by another name."""


class Pair(NamedTuple):
    """A tuple with names."""

    left: int
    right: str


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    when: datetime


class Typed(TypedDict, total=False):
    """A TypedDict."""

    at: date
    secret: SecretStr


def joined(values: list[str]) -> str:
    """What a serializer of its own makes."""
    return ";".join(values)


def parted(value: Any) -> Any:
    """What reads it again."""
    return value.split(";") if isinstance(value, str) else value


_Typed = tuple[Any, Any]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
number = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes(timezones=st.just(UTC))
finite = st.floats(allow_nan=False, allow_infinity=False)

Kind = tuple[Any, st.SearchStrategy[Any]]

#: Types and values that arrive as they are given.
ARRIVES: list[Kind] = [
    (int, number),
    (str, text),
    (bool, st.booleans()),
    (float, finite),
    (float | None, st.none() | finite),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (datetime, moments | st.datetimes()),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(days=-10**5), timedelta(days=10**5))),
    (UUID, st.uuids()),
    (bytes, text.map(str.encode)),
    (SecretStr, text.map(SecretStr)),
    (SecretBytes, text.map(lambda t: SecretBytes(t.encode()))),
    (Secret[date], st.dates().map(lambda d: Secret[date](d))),
    (list[SecretStr], st.lists(text.map(SecretStr), max_size=3)),
    (dict[str, float], st.dictionaries(text, finite, max_size=3)),
    (dict[int, date], st.dictionaries(number, st.dates(), max_size=3)),
    (dict[UUID, int], st.dictionaries(st.uuids(), number, max_size=3)),
    (tuple[int, str], st.tuples(number, text)),
    (tuple[datetime, ...], st.lists(moments, max_size=3).map(tuple)),
    (set[int], st.sets(number, max_size=3)),
    (frozenset[date], st.frozensets(st.dates(), max_size=3)),
    (deque[int], st.lists(number, max_size=3).map(deque)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (IPv4Address, st.ip_addresses(v=4)),
    (PurePosixPath, text.filter(lambda t: "\0" not in t).map(PurePosixPath)),
    (Annotated[int, Field(gt=0)], st.integers(1, 10)),
    (Annotated[list[str], PlainSerializer(joined), pydantic.BeforeValidator(parted)],
     st.lists(st.text(string.ascii_letters, min_size=1), min_size=1, max_size=3)),
    (Cat | Dog, st.builds(Cat) | st.builds(Dog, kind=st.just("dog"), name=text)),
    (Annotated[Cat | Dog, Field(discriminator="kind")],
     st.builds(Cat, lives=number) | st.builds(Dog, kind=st.just("dog"), name=text)),
    (Annotated[
        Annotated[Cat, Tag("c")] | Annotated[Computed, Tag("w")],
        Discriminator(lambda v: "w" if "width" in (v if isinstance(v, dict) else v.__dict__)
                      else "c")],
     st.builds(Cat, lives=number) | st.builds(Computed, width=number)),
    (Computed, st.builds(Computed, width=st.integers(-9, 9))),
    (Numbers, st.lists(number, max_size=3).map(Numbers)),
    (Pair, st.builds(Pair, number, text)),
    (Point, st.builds(Point, x=number, when=moments)),
    (Typed, st.fixed_dictionaries({}, optional={"at": st.dates(),
                                                "secret": text.map(SecretStr)})),
    (Any, st.recursive(st.none() | st.booleans() | number | finite | text,
                       lambda inner: st.lists(inner, max_size=2)
                       | st.dictionaries(text, inner, max_size=2))),
]  # fmt: skip

#: Values that arrive as texts, which a strict type does not read.
AS_TEXT: list[Kind] = [
    (int, st.integers()),
    (float, st.floats()),
    (float | None, st.none() | st.floats()),
    (dict[str, float], st.dictionaries(text, st.floats(), max_size=3)),
]

#: Types and values that JSON cannot bring back.
REFUSED: list[Kind] = [
    (Any, st.dates() | st.just(math.nan) | st.just((1, 2)) | st.just({1: 2}) | st.just(b"\xff")),
    (bytes, st.just(b"\xff\xfe")),
    (dict[str, Any], st.just({"at": datetime(2026, 1, 1)})),
    (BaseModel, st.just(Cat())),
    (Annotated[str, pydantic.AfterValidator(lambda v: v + "!")], text),
    (object, st.just(Color.RED)),
]

_ALIASES: list[Callable[[str], dict[str, Any]]] = [
    lambda name: {},
    lambda name: {"alias": f"{name}-alias"},
    lambda name: {"validation_alias": f"in_{name}"},
    lambda name: {"serialization_alias": f"out_{name}"},
    lambda name: {"validation_alias": AliasChoices(f"one_{name}", f"other_{name}")},
    lambda name: {"validation_alias": AliasPath("nested", name)},
    lambda name: {"validation_alias": AliasPath("listed", int(name[1:]), "deep")},
    lambda name: {"validation_alias": f"in_{name}", "serialization_alias": f"out_{name}"},
]


@st.composite
def values(draw: st.DrawFn, kinds: list[Kind], *, strict: bool = False) -> tuple[Any, Any]:
    """A type and a value of it: a model, a dataclass, or a container of them."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))
    given = [draw(strategy) for _, strategy in chosen]
    made = draw(st.sampled_from([_model, _model, _model, _dataclass, _pydantic_dataclass, _typed]))
    kind, value = made(draw, [annotation for annotation, _ in chosen], given, strict)
    if draw(st.booleans()):
        return kind, value
    outer: Any = create_model("Outer", inner=(kind, ...))
    held: _Typed = draw(
        st.sampled_from(
            [
                (list[kind], [value, value]),  # type: ignore[valid-type]
                (dict[str, kind], {"first": value}),  # type: ignore[valid-type]
                (kind | None, value),
                (tuple[kind, int], (value, 1)),  # type: ignore[valid-type]
                (outer, outer.model_construct(inner=value)),
            ]
        )
    )
    return held


def _model(draw: st.DrawFn, annotations: list[Any], given: list[Any], strict: bool) -> _Typed:
    fields: dict[str, Any] = {}
    for number, annotation in enumerate(annotations):
        options = draw(st.sampled_from(_ALIASES))(f"f{number}")
        options["exclude"] = draw(st.booleans())
        defaults: list[dict[str, Any]] = [{}, {"default": None}, {"default_factory": lambda: 5}]
        default = draw(st.sampled_from(defaults))
        fields[f"f{number}"] = (annotation, Field(**options, **default))
    config = ConfigDict(
        strict=strict,
        extra=draw(st.sampled_from(["ignore", "forbid", "allow"])),
        validate_by_name=True,
        frozen=draw(st.booleans()),
        arbitrary_types_allowed=True,
    )
    kind: Any = create_model("Made", __config__=config, **fields)
    named = {f"f{number}": value for number, value in enumerate(given)}
    extra: dict[str, Any] = {"more": "kept"} if config["extra"] == "allow" else {}
    return kind, kind.model_construct(**named, **extra)


def _dataclass(draw: st.DrawFn, annotations: list[Any], given: list[Any], strict: bool) -> _Typed:
    kind = dataclasses.make_dataclass(
        "Made", [(f"f{n}", annotation) for n, annotation in enumerate(annotations)]
    )
    return kind, kind(*given)


def _pydantic_dataclass(
    draw: st.DrawFn, annotations: list[Any], given: list[Any], strict: bool
) -> _Typed:
    plain, _ = _dataclass(draw, annotations, given, strict)
    kind: Any = pydantic.dataclasses.dataclass(plain)
    made = object.__new__(kind)
    for number, value in enumerate(given):
        object.__setattr__(made, f"f{number}", value)
    return kind, made


def _typed(draw: st.DrawFn, annotations: list[Any], given: list[Any], strict: bool) -> _Typed:
    kind: Any = TypedDict("Made", {f"f{n}": a for n, a in enumerate(annotations)})  # type: ignore[misc]
    return kind, {f"f{number}": value for number, value in enumerate(given)}
