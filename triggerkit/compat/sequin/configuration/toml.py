"""Write tables of `triggerkit.toml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from triggerkit.compat.sequin.configuration.report import Imported


def toml_of(imported: Imported, source: str) -> str:
    """Return the tables, with the notes above them as comments; `source` names the file."""
    lines = [f"# Made of {_one_line(source)} by `triggerkit import`."]
    if imported.notes:
        lines += ["#", "# Left out, or to be done by hand:"]
        lines += [f"#  - {_one_line(note)}" for note in imported.notes]
    for kind, tables in (("endpoints", imported.endpoints), ("consumers", imported.consumers)):
        for name, values in tables.items():
            lines += ["", f"[{kind}.{_key(name)}]"]
            lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


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


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)
