"""Encode a task's payload as the JSON that its run carries."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec
import orjson
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED, Change


def ready_for_json(value: Any) -> Any:
    """`value` as dicts, lists and scalars: models, dataclasses, `Change` and lists of it.

    Raises:
        InvalidPayload: it holds what JSON does not know.
    """
    try:
        return to_jsonable_python(_without_unchanged(value), fallback=_fields)
    except (TypeError, ValueError) as error:
        raise _no_json(error) from None


def encode(payload: Any) -> bytes:
    """Return the payload's JSON.

    Raises:
        InvalidPayload: it has an integer of more than 64 bits, or text that is no Unicode.
    """
    try:
        return orjson.dumps(payload)
    except TypeError as error:
        raise _no_json(error) from None


def _fields(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else vars(value)


def _no_json(error: Exception) -> InvalidPayload:
    return InvalidPayload([FieldProblem((), f"cannot be written as JSON: {error}")])


def _without_unchanged(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_unchanged(item) for item in value]
    if isinstance(value, Change) and value.metadata.unchanged:
        return replace(value, record=_known_columns(value.record))
    return value


def _known_columns(record: Any) -> Any:
    if isinstance(record, BaseModel):
        unknown = {name for name, value in record.__dict__.items() if value is UNCHANGED}
        return record.model_dump(mode="json", by_alias=True, exclude=unknown)
    columns = record
    if is_dataclass(record):
        names = [field.name for field in fields(record) if hasattr(record, field.name)]
        columns = {name: getattr(record, name) for name in names}
    return {name: value for name, value in columns.items() if value is not UNCHANGED}
