"""A table where no terminal limits it: each row is a line, made without measuring it by Rich, which
takes a second for some thousand rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table

#: What stands between two columns.
_SPACE = "  "


def plain_lines(table: Table, text_of: Callable[[RenderableType], str]) -> Iterator[str]:
    """Yield the header and the rows of a table without lines, their columns below one another;
    `text_of` gives what stands in a cell."""
    columns = [
        [_line(text_of(cell)) for cell in (column.header, *column.cells)]
        for column in table.columns
    ]
    widths = [max(map(_width, column)) for column in columns]
    to_right = [column.justify == "right" for column in table.columns]
    for row in zip(*columns, strict=True):
        cells = [
            " " * (width - _width(text)) + text if right else text + " " * (width - _width(text))
            for text, width, right in zip(row, widths, to_right, strict=True)
        ]
        yield _SPACE.join(cells).rstrip()


def _line(text: str) -> str:
    return text.replace("\n", r"\x0a") if "\n" in text else text


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)
