"""Find where a value that was read back differs from the one that was given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

Path = tuple[str | int, ...]


def difference(given: Any, read: Any, path: Path = ()) -> Path | None:
    """Return the path to the first part that is not equal; None when all is. NaN equals NaN."""
    if given is read:
        return None
    parts = _parts(given, read)
    if parts is None:
        return None if _is_equal(given, read) else path
    for step, part, other in parts:
        found = difference(part, other, (*path, step))
        if found is not None:
            return found
    return None


def _parts(given: Any, read: Any) -> Iterable[tuple[Any, Any, Any]] | None:
    """Return what is to be compared one by one; None when the two are compared as they are."""
    if isinstance(given, BaseModel):
        return _attributes(_fields(given), _fields(read)) if type(read) is type(given) else None
    if is_dataclass(given) and not isinstance(given, type):
        if type(read) is not type(given):
            return None
        names = [field.name for field in fields(given) if field.compare]
        return _attributes(_known(given, names), _known(read, names))
    if isinstance(given, Mapping) and isinstance(read, Mapping) and given.keys() == read.keys():
        return ((key, part, read[key]) for key, part in given.items())
    if isinstance(given, list | tuple) and type(read) is type(given) and len(read) == len(given):
        return ((i, *both) for i, both in enumerate(zip(given, read, strict=True)))
    if type(given) is type(read) and getattr(type(given), "__eq__", None) is object.__eq__:
        # Equal to nothing but itself: what it holds counts.
        return _attributes(getattr(given, "__dict__", None), getattr(read, "__dict__", None))
    return None


def _attributes(
    given: dict[str, Any] | None, read: dict[str, Any] | None
) -> Iterable[tuple[str, Any, Any]] | None:
    if given is None or read is None:
        return None
    missing = object()
    names = dict.fromkeys([*given, *read])
    return ((name, given.get(name, missing), read.get(name, missing)) for name in names)


def _fields(model: BaseModel) -> dict[str, Any]:
    known = model.__dict__
    named = {name: known[name] for name in type(model).model_fields if name in known}
    return {**named, **(model.__pydantic_extra__ or {})}


def _known(value: Any, names: list[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _is_equal(given: Any, read: Any) -> bool:
    if isinstance(given, float) and isinstance(read, float) and math.isnan(given):
        return math.isnan(read)
    if isinstance(given, BaseModel) or isinstance(given, bool) is not isinstance(read, bool):
        return False
    if isinstance(given, datetime) and isinstance(read, datetime):
        return _is_same_time(given, read)
    try:
        return bool(given == read)
    except Exception:
        return False


def _is_same_time(given: datetime, read: datetime) -> bool:
    """Compare as in UTC: `==` finds none equal that is in a zone's repeated or missing hour."""
    offset, other = given.utcoffset(), read.utcoffset()
    if offset is None or other is None:
        return given == read
    # In UTC itself the first and the last day of all would be out of range.
    apart = given.replace(tzinfo=None, fold=0) - read.replace(tzinfo=None, fold=0)
    return apart == offset - other
