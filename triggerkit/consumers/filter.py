"""Filters: comparisons of a record's columns with fixed values.

A column that a message does not carry (a delete under REPLICA IDENTITY DEFAULT has only the key, an
unchanged large value may be missing) decides nothing: the message passes, so that none is lost.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Operator = Literal["==", "!=", ">", "<", ">=", "<=", "in", "not_in", "is_null", "not_null"]
Scalar = bool | int | float | str | None

#: Whether a record passes.
Test = Callable[[Mapping[str, Any]], bool]

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}

_MISSING = object()


class Filter(BaseModel):
    """`column operator value`. As in SQL, a NULL passes no comparison but `is_null`.

    `value` is a list for `in` and `not_in`, and nothing for `is_null` and `not_null`. Text is
    compared by code points. `is_number` is set when the column's type is numeric, whose values are
    text in a message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...] = None
    is_number: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_sequence(cls, values: Any) -> Any:
        if isinstance(values, list | tuple):
            if len(values) not in (2, 3):
                raise ValueError("a filter is [column, operator] or [column, operator, value]")
            return dict(zip(("column", "operator", "value"), values, strict=False))
        return values

    @model_validator(mode="after")
    def _value_fits(self) -> Filter:
        is_list = isinstance(self.value, tuple)
        if self.operator in ("in", "not_in"):
            if not is_list:
                raise ValueError(f"{self.operator!r} needs a list of values")
        elif self.operator in ("is_null", "not_null"):
            if self.value is not None:
                raise ValueError(f"{self.operator!r} takes no value")
        elif is_list or self.value is None:
            raise ValueError(
                f"{self.operator!r} needs a single value; to compare with NULL, use is_null"
            )
        return self

    def test(self) -> Test:
        """Return the filter as a function of a record."""
        column, passes = self.column, self._passes()

        def test(record: Mapping[str, Any]) -> bool:
            value = record.get(column, _MISSING)
            return value is _MISSING or passes(value)

        return test

    def _passes(self) -> Callable[[Any], bool]:
        if self.operator == "is_null":
            return lambda value: value is None
        if self.operator == "not_null":
            return lambda value: value is not None
        read = _number if self.is_number else _same
        if isinstance(self.value, tuple):
            listed, is_in = [read(value) for value in self.value], self.operator == "in"
            return lambda value: value is not None and (read(value) in listed) is is_in
        compare, limit = _COMPARISONS[self.operator], read(self.value)
        return lambda value: value is not None and compare(read(value), limit)


def all_of(filters: Sequence[Filter]) -> Test | None:
    """Return whether a record passes all of `filters`; None when there are none."""
    tests = [filter_.test() for filter_ in filters]
    if not tests:
        return None
    return lambda record: all(test(record) for test in tests)


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> tuple[bool, Decimal]:
    """Return a number in the order that Postgres has: NaN equals itself and is above all others."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return True, Decimal(0)
    return (True, Decimal(0)) if number.is_nan() else (False, number)
