"""Models of tasks, held against the columns of the table that they follow."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from tests.integration.supervisor.checks.checking import run_sql
from triggerkit import Change, changes, rows, task
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.checks.models import models_of
from triggerkit.tasks.declare import declared

TABLE = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE public.people (
    id bigint PRIMARY KEY, name text NOT NULL, mail text, age int NOT NULL, size float8 NOT NULL,
    price numeric(10, 2) NOT NULL, born date, seen_at timestamptz NOT NULL, wakes_at timestamp,
    key uuid NOT NULL, is_active bool NOT NULL, data jsonb, tags text[] NOT NULL, mood mood NOT NULL
)
"""


def model_checks(settings: Settings, annotation: Any) -> list[Check]:
    """The checks of a task that takes rows of `people` as this."""

    def take_person(change: Any) -> None: ...

    take_person.__annotations__["change"] = Change[annotation]
    declared.pop("take_person", None)
    taken = task(on=changes("people"))(take_person)
    found = asyncio.run(run_checks(settings, [], models=models_of([taken]), advise=True))
    return [check for check in found if check.name.startswith("model ")]


@pytest.fixture
def people(settings: Settings) -> Settings:
    """Settings for a database with a table of many types."""
    run_sql(settings, TABLE)
    return settings


class Part(BaseModel):
    id: int
    nte: str


class Right(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: int
    full_name: str = Field(alias="name")
    mail: str | None = Field(None, validation_alias=AliasChoices("mail", "email"))
    age: int = Field(gt=3, lt=150)
    size: float
    price: Decimal
    born: dt.date | None
    seen_at: dt.datetime
    wakes_at: dt.datetime | None
    key: UUID
    is_active: bool
    data: dict[str, Any] | None
    tags: list[str]
    mood: Literal["glad", "sad"]
    not_a_column: int = 3

    @field_validator("full_name")
    @classmethod
    def of_ours(cls, value: str) -> str:
        if value != "Ada":
            raise ValueError("is not one of ours")
        return value


@dataclass
class AsText:
    id: int
    born: str | None
    price: str
    seen_at: str
    mail: Any = None


def test_a_model_that_takes_what_messages_have(people: Settings) -> None:
    for kind in (Right, AsText):
        checks = model_checks(people, kind)
        assert [(c.ok, c.detail) for c in checks] == [
            (True, "takes what messages have of public.people")
        ]


@pytest.mark.parametrize(
    ("field", "kind", "said"),
    [
        ("title", str, "has no column 'title', which it needs"),
        ("nme", str, "has no column 'nme', which it needs; did you mean name?"),
        ("age", UUID, "column 'age' is int4"),
        ("size", int, "column 'size' is float8"),
        ("key", int, "column 'key' is uuid"),
        ("seen_at", dt.date, "column 'seen_at' is timestamptz"),
        ("is_active", dt.datetime, "column 'is_active' is bool"),
        ("tags", str, "column 'tags' is text[]"),
        ("name", list[str], "column 'name' is text"),
        ("mood", int, "column 'mood' is mood"),
    ],
)
def test_a_field_that_takes_no_value_of_its_column(
    people: Settings, field: str, kind: Any, said: str
) -> None:
    wrong = type("Person", (BaseModel,), {"__annotations__": {"id": int, field: kind}})
    (check,) = model_checks(people, wrong)
    assert check.failed
    assert check.name == "model Person of take_person"
    assert said in check.detail
    assert (check.remedy or "").startswith("triggerkit models public.people")
    assert "test_models.py:" in (check.remedy or "")


def test_a_model_that_forbids_other_columns(people: Settings) -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        id: int

    (check,) = model_checks(people, Strict)
    assert check.failed
    assert "it forbids the column 'name'" in check.detail


def test_null_that_a_field_does_not_take_is_advice(people: Settings) -> None:
    class Person(BaseModel):
        id: int
        mail: str
        born: dt.date

    found = {check.name: check for check in model_checks(people, Person)}
    assert found["model Person of take_person"].ok
    advice = found["model Person of take_person: NULL"]
    assert (advice.ok, advice.failed) == (False, False)
    assert "NULL in mail, born" in advice.detail


def test_rows_of_several_kinds_are_left_to_the_task(
    people: Settings,
) -> None:
    class Wrong(BaseModel):
        nothing: int

    assert model_checks(people, Wrong | Right) == []
    assert model_checks(people, dict[str, Any]) == []


def test_a_batch_of_rows_of_a_partitioned_table(settings: Settings) -> None:
    run_sql(
        settings,
        "CREATE TABLE public.parts (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
    )

    @task(on=rows("parts"))
    def take_parts(batch: list[Change[Part]]) -> None: ...

    found = asyncio.run(run_checks(settings, [], models=models_of([take_parts])))
    (check,) = [check for check in found if check.name.startswith("model ")]
    assert "has no column 'nte', which it needs; did you mean note?" in check.detail
