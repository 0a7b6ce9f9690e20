"""Filters: comparisons of a record's columns with fixed values.

A column that a message does not carry (a delete under REPLICA IDENTITY DEFAULT has only the key, an
unchanged large value may be missing) decides nothing: the message passes, so that none is lost.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from triggerkit.consumers.filters.comparison import Key, UnfitValue, comparison_of, number

Operator = Literal["==", "!=", ">", "<", ">=", "<=", "in", "not_in", "is_null", "not_null"]
#: Those that need an order of the values.
ORDERING: Final = frozenset({">", "<", ">=", "<="})
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


class RetypedColumn(Exception):
    """A column's value is not of the type that its filter compares."""

    def __init__(self, column: str, type_name: str | None) -> None:
        super().__init__(
            f"the filter of column {column!r} compares {type_name or 'another type'}, which the "
            "value is not: was the column's type changed? To compare its new type, run: "
            "triggerkit apply"
        )


class Filter(BaseModel):
    """`column operator value`. As in SQL, a NULL passes no comparison but `is_null`.

    `value` is a list for `in` and `not_in`, and nothing for `is_null` and `not_null`. `type` is the
    column's, by which values compare; it is set when the filter is held against the table, and so
    is `is_number`, for a type whose values are numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...] = None
    is_number: bool = False
    type: str | None = None

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
            if isinstance(self.value, tuple) and None in self.value:
                raise ValueError("a list has no NULL; to compare with NULL, use is_null")
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
            try:
                return value is _MISSING or passes(value)
            except (UnfitValue, TypeError):
                raise RetypedColumn(column, self.type) from None

        return test

    def compares_as(self, other: Filter) -> bool:
        """Return whether `other`, of another table's column, has the same value and compares it
        alike."""
        read, read_other = self._key(), other._key()
        if read is not read_other:
            return False
        one, two = (v if isinstance(v, tuple) else (v,) for v in (self.value, other.value))
        return [*map(read, one)] == [*map(read, two)]

    def _passes(self) -> Callable[[Any], bool]:
        if self.operator == "is_null":
            return lambda value: value is None
        if self.operator == "not_null":
            return lambda value: value is not None
        read = self._key()
        if isinstance(self.value, tuple):
            listed, is_in = [read(value) for value in self.value], self.operator == "in"
            return lambda value: value is not None and (read(value) in listed) is is_in
        compare, limit = _COMPARISONS[self.operator], read(self.value)
        return lambda value: value is not None and compare(read(value), limit)

    def _key(self) -> Key:
        found = None if self.type is None else comparison_of(self.type)
        if found is not None:
            return found.key
        return number if self.is_number else _same


def all_of(filters: Sequence[Filter]) -> Test | None:
    """Return whether a record passes all of `filters`; None when there are none."""
    tests = [filter_.test() for filter_ in filters]
    if not tests:
        return None
    return lambda record: all(test(record) for test in tests)


def _same(value: Any) -> Any:
    return value
