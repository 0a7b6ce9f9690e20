"""Payloads as the SDK writes them: superjson, as the JSON that a Python task takes.

Superjson is JSON and, beside it, what JSON cannot say: `{"json": …, "meta": {"values": …}}`. Dates
stay ISO 8601 text, which types of tasks read; what is undefined is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from triggerkit.errors import FieldProblem, InvalidPayload

#: A name in a path ends at a dot that no backslash stands before.
_NAME: Final = re.compile(r"((?:\\.|[^.\\])*)(\.|$)", re.DOTALL)

#: What stands for a value that is not there.
_UNDEFINED: Final = object()

_Path = tuple[str, ...]


def read_packet(data: object, kind: str | None) -> object:
    """Return the payload that the SDK sent as `data` of a `payloadType`.

    Raises:
        InvalidPayload: it is not what its type says, or has what JSON has not.
    """
    if kind == "application/super+json" and isinstance(data, str):
        return read_super_json(data)
    if kind == "application/json" and isinstance(data, str):
        return _parsed(data)
    if kind in (None, "application/json", "text/plain", "application/super+json"):
        return data
    raise InvalidPayload([FieldProblem((), f"payloads of the type {kind!r} are not taken")])


def read_super_json(text: str) -> object:
    """Return what superjson's text says.

    Raises:
        InvalidPayload: it is malformed, or has what JSON has not, such as NaN.
    """
    packed = _parsed(text)
    if not (isinstance(packed, dict) and "json" in packed):
        raise _invalid((), "it is not superjson: an object with json is expected")
    value = [packed["json"]]
    meta = packed.get("meta")
    tree = meta.get("values") if isinstance(meta, dict) else None
    try:
        for path, kind in _annotations(tree, ()):
            _place(value, path, kind)
    except RecursionError:
        raise _invalid((), "it is nested too deep") from None
    return None if value[0] is _UNDEFINED else _cleared(value[0])


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _invalid((), "it is malformed JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _annotations(tree: Any, path: _Path) -> Iterator[tuple[_Path, object]]:
    """Yield what is said of each place, the inner ones first."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _annotations(inner, (*path, *_names(name)))
    elif isinstance(tree, list) and tree:
        if len(tree) > 1:
            yield from _annotations(tree[1], path)
        yield path, tree[0]
    elif tree is not None:
        raise _invalid(path, "its superjson is malformed")


def _names(path: str) -> Iterator[str]:
    for found in _NAME.finditer(path):
        yield re.sub(r"\\(.)", r"\1", found[1])
        if not found[2]:
            return


def _place(root: list[Any], path: _Path, kind: object) -> None:
    holder: Any = root
    at: Any = 0
    for name in path:
        holder = _member(holder, at, path)
        at = int(name) if isinstance(holder, list) and name.isdecimal() else name
    found = _member(holder, at, path)
    make = _MAKE.get(kind) if isinstance(kind, str) else None
    if make is not None:
        holder[at] = make(found, path)


def _member(holder: Any, at: Any, path: _Path) -> Any:
    try:
        return holder[at]
    except (LookupError, TypeError):
        raise _invalid(path, "its superjson names a place that is not there") from None


def _integer(value: object, path: _Path) -> object:
    if not (isinstance(value, str) and re.fullmatch(r"-?\d{1,1000}", value, re.ASCII)):
        raise _invalid(path, "it is no bigint")
    return int(value)


def _number(value: object, path: _Path) -> object:
    if value == "-0":
        return -0.0
    raise _invalid(path, f"{value} is a number that JSON has not")


def _mapping(value: object, path: _Path) -> object:  # noqa: ARG001 - as all of them
    """Return a map with names as an object; any other stays a list of its pairs."""
    pairs = value if isinstance(value, list) else []
    if all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        return dict(pairs)
    return value


#: What is made of a value, by its type; what has none stays as its JSON is.
_MAKE: Final[dict[str, Callable[[object, _Path], object]]] = {
    "bigint": _integer,
    "map": _mapping,
    "number": _number,
    "undefined": lambda _value, _path: _UNDEFINED,
}


def _cleared(value: Any) -> Any:
    """Return a value without what is undefined in it; in a list it is null, as JSON has it."""
    if isinstance(value, dict):
        return {k: _cleared(v) for k, v in value.items() if v is not _UNDEFINED}
    if isinstance(value, list):
        return [None if one is _UNDEFINED else _cleared(one) for one in value]
    return value


def _invalid(path: _Path, message: str) -> InvalidPayload:
    return InvalidPayload([FieldProblem(path, message)])
