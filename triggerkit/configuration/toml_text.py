"""Write tables of `triggerkit.toml`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def toml_table(kind: str, name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table `kind.name`."""
    yield f"[{kind}.{_key(name)}]"
    for key, value in values.items():
        yield f"{_key(key)} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        # TOML has no null: what is none is not there.
        given = {str(key): one for key, one in value.items() if one is not None}
        inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in given.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value if one is not None)}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return _text(str(value))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _text(name)


def _text(text: str) -> str:
    # TOML has the escapes of JSON; DEL is the one character that only TOML escapes.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
