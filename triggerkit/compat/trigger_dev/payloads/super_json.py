"""Payloads as the SDK writes them: superjson, as the JSON that a Python task takes.

Superjson is JSON and, beside it, what JSON cannot say: `{"json": …, "meta": {"values": …}}`. Dates
stay ISO 8601 text, which types of tasks read; what is undefined is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from triggerkit.errors import FieldProblem, InvalidPayload

#: A name in a path ends at a dot that no backslash stands before. The first versions, of which the
#: SDK has one, write no backslash before a backslash, and say no version.
_NAME: Final = {
    True: re.compile(r"((?:\\[.\\]|[^.\\])*)(\.|$)"),
    False: re.compile(r"((?:\\\.|[^.])*)(\.|$)"),
}
_ESCAPED: Final = {True: re.compile(r"\\([.\\])"), False: re.compile(r"\\(\.)")}

#: Digits of the longest index.
_MOST_DIGITS: Final = 9

#: What stands for a value that is not there.
_UNDEFINED: Final = object()

_Path = tuple[str, ...]


class _Name(NamedTuple):
    """A name in a path: its text, where that begins, and whether no other follows."""

    text: str
    start: int
    is_last: bool


_Names = Callable[[str], Iterable[_Name]]


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
    given = packed.get("meta")
    meta = given if isinstance(given, dict) else {}
    names = partial(_names, has_version="v" in meta)
    try:
        _require_tree(meta.get("referentialEqualities"), names)
        for path, kind in _annotations(meta.get("values"), ()):
            _place(value, path, kind, names)
        return None if value[0] is _UNDEFINED else _cleared(value[0])
    except RecursionError:
        raise _invalid((), "it is nested too deep") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _invalid((), "it is malformed JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _require_tree(equalities: Any, names: _Names) -> None:
    """See that nothing refers to what it is in: superjson writes null there, and tells of it here.

    Raises:
        InvalidPayload: something does.
    """
    parts = equalities if isinstance(equalities, list) else [[], equalities]
    groups = [[(), *_paths(parts[0], names)]] if parts else []
    for others in parts[1:]:
        if isinstance(others, dict):
            groups += [_paths([one, *_listed(same)], names) for one, same in others.items()]
    for group in groups:
        known = set(group)
        for path in group:
            if any(path[:end] in known for end in range(len(path))):
                raise _invalid(path, "it refers to what it is a part of, which JSON cannot say")


def _paths(texts: Any, names: _Names) -> list[_Path]:
    listed = [text for text in _listed(texts) if isinstance(text, str)]
    return [tuple(name.text for name in names(text)) for text in listed]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _annotations(tree: Any, path: _Path) -> Iterator[tuple[_Path, object]]:
    """Yield what is said of each place, the inner ones first; a path has the tree's keys."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _annotations(inner, (*path, name))
    elif isinstance(tree, list) and tree:
        if len(tree) > 1:
            yield from _annotations(tree[1], path)
        yield path, tree[0]
    elif tree is not None:
        raise _invalid(path, "its superjson is malformed")


def _names(path: str, *, has_version: bool) -> Iterator[_Name]:
    for found in _NAME[has_version].finditer(path):
        text = _ESCAPED[has_version].sub(r"\1", found[1])
        yield _Name(text, found.start(), not found[2])
        if not found[2]:
            return


def _place(root: list[Any], path: _Path, kind: object, names: _Names) -> None:
    holder: Any = root
    at: Any = 0
    for text in path:
        holder, at = _found(holder[at], text, names, path)
    make = _MAKE.get(kind) if isinstance(kind, str) else None
    if make is not None:
        holder[at] = make(holder[at], path)


def _found(value: Any, text: str, names: _Names, path: _Path) -> tuple[Any, Any]:
    """Return what holds the place that `text` names in `value`, and where in it."""
    passed: list[tuple[Any, int]] = []
    for name in names(text):
        passed.append((value, name.start))
        at = _place_in(value, name.text)
        if at is None:
            break
        if name.is_last:
            return value, at
        value = value[at]
    # The SDK's superjson writes no backslash before the dots of the last name.
    for holder, start in reversed(passed):
        if isinstance(holder, dict) and text[start:] in holder:
            return holder, text[start:]
    raise _invalid(path, "its superjson names a place that is not there")


def _place_in(value: Any, name: str) -> str | int | None:
    if isinstance(value, dict):
        return name if name in value else None
    if isinstance(value, list) and name.isdecimal() and len(name) <= _MOST_DIGITS:
        return int(name) if int(name) < len(value) else None
    return None


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
