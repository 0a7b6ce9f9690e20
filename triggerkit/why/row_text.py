"""Read a row as text has it: its table's name, a colon, and the values of its key as JSON."""

from __future__ import annotations

import orjson


def read_row(text: str) -> tuple[str, list[str]] | None:
    """Return the table and the values of the key; None where `text` is no row."""
    at = text.find(":[")
    while at >= 0:
        # A name may have a colon and a bracket, too.
        try:
            return text[:at], [str(value) for value in orjson.loads(text[at + 1 :])]
        except orjson.JSONDecodeError:
            at = text.find(":[", at + 1)
    return None
