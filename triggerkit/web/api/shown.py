"""Answers of which a part nests deeper than answers are written: that part is shown as its text."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

#: How deep an answer nests before the rest becomes text; its own parts are far from it.
MOST_DEEP = 100


def shown(answer: TypeAdapter[Any], found: object) -> object:
    """Return `found` as JSON has it, for `answer` to be written."""
    try:
        return answer.dump_python(found, mode="json")
    except ValueError:
        # One row whose JSON is deeper than that must not hide the others.
        return _flat(found, 0)


def _flat(value: object, depth: int) -> object:
    if isinstance(value, BaseModel):
        return {n: _flat(getattr(value, n), depth + 1) for n in type(value).model_fields}
    if is_dataclass(value):
        return {f.name: _flat(getattr(value, f.name), depth + 1) for f in fields(value)}
    if isinstance(value, dict | list | tuple) and depth > MOST_DEEP:
        return json.dumps(value)
    if isinstance(value, dict):
        return {str(key): _flat(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_flat(part, depth + 1) for part in value]
    return to_jsonable_python(value)
