"""Read JSON as a type, by pydantic's own rules for JSON, whatever the type's code raises."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from pydantic import TypeAdapter, ValidationError

from triggerkit.errors import FieldProblem, InvalidPayload

T = TypeVar("T")


def validate_json(adapter: TypeAdapter[Any], raw: bytes) -> Any:
    """Return what `adapter` makes of JSON that is well-formed.

    Raises:
        ValidationError: it does not fit.
        InvalidPayload: a validator raised another error, or it is nested too deeply.
    """
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
            raise
    except Exception as error:
        raise _own_error(error) from None
    # Nested more deeply than pydantic reads: rows of jsonb may be.
    return validate_python(adapter, decoded(msgspec.json.Decoder(), raw))


def validate_python(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Return what `adapter` makes of a value; raises as `validate_json` does."""
    try:
        return adapter.validate_python(value)
    except ValidationError:
        raise
    except Exception as error:
        raise _own_error(error) from None


def decoded(decoder: msgspec.json.Decoder[T], raw: bytes | str | msgspec.Raw) -> T:
    """Return what `decoder` makes of JSON that is well-formed.

    Raises:
        InvalidPayload: it does not fit, or is nested too deeply.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidPayload([_problem(str(error))]) from None
    except msgspec.DecodeError:
        raise InvalidPayload([FieldProblem((), "has a text that is no Unicode")]) from None
    except RecursionError:
        raise InvalidPayload([FieldProblem((), "is nested too deeply")]) from None


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Return the fields that do not fit."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [FieldProblem(problem["loc"], problem["msg"]) for problem in found]


def _own_error(error: Exception) -> InvalidPayload:
    # Without its message, which may have values.
    what = f"a validator of its type raised {type(error).__name__}"
    return InvalidPayload([FieldProblem((), what)])


def _problem(message: str) -> FieldProblem:
    """Return a field and its problem, read from msgspec's message with its path."""
    msg, _, path = message.partition(" - at `$")
    names = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    loc: list[str | int] = [name or int(index) for name, index in names]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", msg):
        return FieldProblem((*loc, missing.group(1)), "Field required")
    return FieldProblem(tuple(loc), msg)
