"""A console that shows control characters instead of obeying them.

A key, a payload or the message of an exception is somebody else's text, and may hold what moves the
cursor or sets the clipboard.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

#: What lines and columns of our own texts are made of.
_LAYOUT = frozenset("\n\t")

#: Kinds of characters that a terminal obeys: controls, and formats such as an order of writing.
_OBEYED = frozenset({"Cc", "Cf"})

#: Joins the parts of an emoji and of words in several scripts.
_JOINERS = frozenset("\u200c\u200d")


def visible(text: str) -> str:
    """Return a text in which control characters are written as their codes, such as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in _LAYOUT or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _OBEYED:
        return character
    number = ord(character)
    # Not \r and its kin, which look like a backslash and a letter that were written.
    return f"\\x{number:02x}" if number < 0x100 else character.encode("unicode_escape").decode()


class TerminalConsole(Console):
    """Shows every text that it is given as `visible` has it."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is drawn, by itself or in a table's cell."""
        return super().render_str(visible(text), **options)
