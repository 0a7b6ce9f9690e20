"""Filters compare columns as SQL does, and never lose a message that they cannot judge."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from triggerkit.consumers.filters.filter import Filter, RetypedColumn, all_of


@pytest.mark.parametrize(
    ("given", "record", "passes"),
    [
        (("status", "==", "paid"), {"status": "paid"}, True),
        (("status", "==", "paid"), {"status": "open"}, False),
        (("status", "!=", "paid"), {"status": "open"}, True),
        (("status", "!=", "paid"), {"status": None}, False),
        (("n", ">", 5), {"n": 6}, True),
        (("n", ">", 5), {"n": 5}, False),
        (("n", ">=", 5), {"n": 5}, True),
        (("n", "<", 5), {"n": None}, False),
        (("n", "<=", 5), {"n": 5}, True),
        (("n", "in", [1, 2]), {"n": 2}, True),
        (("n", "in", [1, 2]), {"n": 3}, False),
        (("n", "not_in", [1, 2]), {"n": 3}, True),
        (("n", "not_in", [1, 2]), {"n": None}, False),
        (("n", "is_null"), {"n": None}, True),
        (("n", "is_null"), {"n": 0}, False),
        (("n", "not_null"), {"n": 0}, True),
        (("n", "not_null"), {"n": None}, False),
    ],
)
def test_a_record_is_compared_as_sql_does(
    given: tuple[Any, ...], record: dict[str, Any], passes: bool
) -> None:
    assert Filter.model_validate(given).test()(record) is passes


@pytest.mark.parametrize(
    ("value", "record", "operator", "passes"),
    [
        ("12.50", "12.5", "==", True),
        ("9", "10", "<", True),
        ("9", "NaN", "<", True),
        ("NaN", "NaN", "==", True),
        ("Infinity", "NaN", "<", True),
        (0.1, 0.1, "==", True),
    ],
)
def test_numbers_that_are_text_in_a_message_are_compared_as_numbers(
    value: object, record: object, operator: str, passes: bool
) -> None:
    """`value operator record`: Postgres sorts NaN above all."""
    mirrored = {"<": ">", "==": "=="}[operator]
    made = Filter.model_validate(
        {"column": "n", "operator": mirrored, "value": value, "is_number": True}
    )
    assert made.test()({"n": record}) is passes


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("int8", "paid"),
        ("int8", True),
        ("bool", 1),
        ("timestamptz", "soon"),
        ("text", 5),
        ("uuid", 5),
    ],
)
def test_a_value_that_is_not_of_its_columns_type_is_not_passed_over(
    type_name: str, value: object
) -> None:
    """The column was retyped: nobody knows whether the message is wanted."""
    literal = {"int8": 5, "bool": True, "timestamptz": "2026-01-01T00:00:00.000000Z"}
    given = {
        "column": "n",
        "operator": "==",
        "value": literal.get(type_name, "x"),
        "type": type_name,
    }
    with pytest.raises(RetypedColumn, match="triggerkit apply"):
        Filter.model_validate(given).test()({"n": value})


def test_a_column_that_a_message_lacks_decides_nothing() -> None:
    test = all_of([Filter.model_validate(("status", "==", "paid"))])
    assert test is not None
    assert test({"id": 1})


def test_all_filters_must_pass() -> None:
    test = all_of([Filter.model_validate(("a", "==", 1)), Filter.model_validate(("b", "==", 2))])
    assert test is not None
    assert test({"a": 1, "b": 2})
    assert not test({"a": 1, "b": 3})
    assert all_of([]) is None


@pytest.mark.parametrize(
    "given",
    [
        ("n", "~", 1),
        ("n", "in", 1),
        ("n", "==", [1]),
        ("n", "==", None),
        ("n", "is_null", 1),
        ("n", "in", [1, None]),
        ("n",),
        {"column": "n", "operator": "==", "value": 1, "colum": 2},
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Filter.model_validate(given)
