"""A console that shows control characters instead of obeying them.

A key, a payload or the message of an exception is somebody else's text, and may hold what moves the
cursor or sets the clipboard.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from triggerkit.terminal.plain_table import plain_lines

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


#: Columns of what no terminal limits: nothing of a table is cut there, and each row is a line.
PIPED_WIDTH = 10_000


def counted(count: int, noun: str) -> str:
    """Return so many of a noun, in words: `1 change`, `1,200 changes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class TerminalConsole(Console):
    """Shows every text that it is given as `visible` has it, and tables whole.

    With NO_COLOR in the environment it writes no escape sequence at all.
    """

    def __init__(self, **options: Any) -> None:
        if os.environ.get("NO_COLOR"):
            # By itself Rich leaves out colours alone: bold text and bars are sequences too.
            options |= {"force_terminal": False, "color_system": None}
            columns, _ = shutil.get_terminal_size()
            options = {**({"width": columns} if sys.stdout.isatty() else {}), **options}
        super().__init__(**options)
        # Whatever COLUMNS says: it is of the terminal that the pipe leads away from.
        if "width" not in options and not self.is_terminal:
            self.width = PIPED_WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, and tables with their first column, the key, in one piece."""
        for table in objects:
            if isinstance(table, Table) and table.columns:
                if self.width == PIPED_WIDTH and table.box is None:
                    self._print_plain(table)
                    return
                _keep_whole(table)
        super().print(*objects, **options)

    def _print_plain(self, table: Table) -> None:
        for line in plain_lines(table, self._text_of):
            self.file.write(f"{line}\n")
        self.file.flush()

    def _text_of(self, cell: RenderableType) -> str:
        if isinstance(cell, str):
            # Without a bracket there is no markup in it.
            return self.render_str(cell).plain if "[" in cell else visible(cell)
        return "".join(segment.text for segment in self.render(cell)).strip("\n")

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is drawn, by itself or in a table's cell."""
        return super().render_str(visible(text), **options)


def _keep_whole(table: Table) -> None:
    """Have cells go on in the next line where Rich would cut them."""
    key, *others = table.columns
    key.no_wrap = True
    for column in others:
        if column.overflow == "ellipsis":
            column.overflow = "fold"
