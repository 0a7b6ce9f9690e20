"""Values as pages show them: long vectors by their length, long texts cut, numbers exact."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from jinja2.runtime import Undefined
from markupsafe import Markup, escape

from triggerkit.terminal.console import visible
from triggerkit.why.row_text import read_row

#: Numbers in a list from which on it is a vector, and characters of a shown text.
LEAST_VECTOR = 17
TEXT_CHARS = 2_000

#: Characters of a name or a key in a list.
NAME_CHARS = 200

#: Characters of a whole payload or output that a page shows, and levels it is shown to.
WHOLE_CHARS = 20_000
MOST_LEVELS = 20

_VECTOR_TEXT = re.compile(r"\[[-+0-9.eE, ]{40,}\]")


def pretty(value: Any) -> str:
    """Return JSON in lines, with long vectors and texts named by their size."""
    text = json.dumps(compact(value), indent=2, ensure_ascii=False, default=str)
    if len(text) <= WHOLE_CHARS:
        return text
    return f"{text[:WHOLE_CHARS]}\n… {len(text) - WHOLE_CHARS:,} more characters"


def one_line(value: Any) -> str:
    """Return a value of a row in one line."""
    short = compact(value)
    if isinstance(short, str):
        return short
    text = json.dumps(short, ensure_ascii=False, default=str)
    return text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}…"


def compact(value: Any, level: int = 0) -> Any:
    """Return a value with what is too long for a page named by its size."""
    if isinstance(value, str):
        return _text(value)
    if level > MOST_LEVELS and isinstance(value, dict | list):
        return "…"
    if isinstance(value, dict):
        return {str(name): compact(part, level + 1) for name, part in value.items()}
    if isinstance(value, list):
        return _vector(value) or [compact(part, level + 1) for part in value]
    return value


def _text(text: str) -> str:
    if _VECTOR_TEXT.fullmatch(text):
        return f"{text.count(',') + 1} floats"
    if len(text) <= TEXT_CHARS:
        return text
    return f"{text[:TEXT_CHARS]}… {len(text) - TEXT_CHARS:,} more characters"


def _vector(values: list[Any]) -> str | None:
    if len(values) < LEAST_VECTOR:
        return None
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in values):
        return None
    return f"{len(values)} {'floats' if any(isinstance(n, float) for n in values) else 'numbers'}"


def finalized(value: Any) -> Any:
    """Return what a template writes for a value: nothing for None, control characters as codes."""
    if isinstance(value, Markup | Undefined):
        return value
    return "" if value is None else visible(str(value))


def as_typed(value: str) -> Markup:
    """Return text for a field of a form: escaped, and sent back as it is, whatever it has."""
    return escape(value)


def milliseconds(seconds: float) -> str:
    """Return a duration, in the unit that suits it."""
    if seconds < 10:
        return f"{seconds * 1000:,.1f} ms"
    if seconds < 600:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"


def span(duration: timedelta) -> str:
    """Return a duration; clocks that differ make none that is negative."""
    return milliseconds(max(0.0, duration.total_seconds()))


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, size_bytes in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size_bytes:
            return f"{count / size_bytes:,.1f} {unit}"
    return f"{count} bytes"


def counted(count: int, most: int) -> str:
    """Return a count that ends at `most`."""
    return f"{count:,}" if count < most else f"{most:,}+"


def short(text: str) -> str:
    """Return a name or a key as a list shows it: cut where it is long."""
    return text if len(text) <= NAME_CHARS else f"{text[:NAME_CHARS]}…"


def short_place(place: str) -> str:
    """Return where a function stands without the folders above its own."""
    return "/".join(place.rsplit("/", 2)[-2:])


def row_text(key: str) -> str:
    """Return a row by table and key, of its identity such as `public.posts:["17"]`."""
    row = read_row(key)
    return key if row is None else f"{row[0]} {','.join(row[1])}"


def ago(moment: datetime) -> str:
    """Return how long ago a moment was, or how soon it comes."""
    distance = datetime.now(UTC) - moment
    size = _size(abs(distance))
    return f"{size} ago" if distance >= timedelta(0) else f"in {size}"


def exact(moment: date) -> str:
    """Return a moment to the microsecond, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC"


def _size(distance: timedelta) -> str:
    seconds = distance.total_seconds()
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def row_of(source: dict[str, Any] | None) -> str:
    """Return the row that a run is of, by table and key; empty where it is of none."""
    key = str((source or {}).get("key") or "")
    return row_text(key) if ":[" in key else ""
