"""Waterfalls in the terminal: what happened when, as bars on one scale of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from triggerkit.consumers.trace.way import Bar
from triggerkit.terminal.console import TerminalConsole

#: As wide as a line gets: a terminal wraps it, where rich would cut off what was measured.
WIDTH = 240

#: Characters of the bar that shows when something happened between the first and the last.
BAR_CHARS = 24


def draw(steps: Sequence[Bar]) -> None:
    """Print a line for each step; the first one is at 0 ms."""
    start = steps[0].start
    end = max(step.end or step.start for step in steps)
    whole: dict[str, Any] = {"no_wrap": True, "overflow": "ignore"}
    table = Table(Column("ms", justify="right"), box=None, pad_edge=False)
    for name in ("", "what", "took", "outcome"):
        table.add_column(name, **whole)
    for step in steps:
        table.add_row(
            f"{_ms(start, step.start):,.1f}",
            _bar(start, end, step),
            escape(step.what),
            "" if step.end in (None, step.start) else f"{_ms(step.start, step.end):,.1f} ms",
            escape(step.outcome),
        )
    TerminalConsole(highlight=False, soft_wrap=True, width=WIDTH).print(table)


def _ms(start: datetime, end: datetime | None) -> float:
    return 0.0 if end is None else (end - start).total_seconds() * 1000


def _bar(start: datetime, end: datetime, step: Bar) -> str:
    whole = max(_ms(start, end), 0.001)
    first = min(BAR_CHARS - 1, max(0, int(BAR_CHARS * _ms(start, step.start) / whole)))
    last = min(BAR_CHARS, max(first + 1, int(BAR_CHARS * _ms(start, step.end or end) / whole)))
    return f"{' ' * first}{'█' * (last - first)}{' ' * (BAR_CHARS - last)}"
