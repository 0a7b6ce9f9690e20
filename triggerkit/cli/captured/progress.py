"""Show the progress of backfills: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar

from triggerkit.consumers.backfill.store import BackfillProgress as Backfill
from triggerkit.terminal.console import TerminalConsole

#: Characters of a bar in a table.
BAR_WIDTH = 20


class Shown(Protocol):
    """The display of the progress of backfills."""

    def show(self, backfill: Backfill) -> None:
        """Show how far it is now."""


@contextmanager
def display(console: TerminalConsole) -> Iterator[Shown]:
    """Bars on a terminal, else a line per tenth and per change of state."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[progress_text]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)


def bar(backfill: Backfill) -> ProgressBar:
    """Return a bar for a table's cell."""
    return ProgressBar(total=100, completed=backfill.percent, width=BAR_WIDTH)


def progress_text(backfill: Backfill) -> str:
    """Rows, percent, rate and remaining time, as far as they are known."""
    total = max(backfill.rows_estimated, backfill.rows_read)
    if total == 0 and backfill.state != "completed":
        return "no rows yet"
    parts = [f"{backfill.rows_read:,} of {total:,} ({backfill.percent:.0f} %)"]
    if backfill.rows_per_s is not None:
        parts.append(f"{backfill.rows_per_s:,.0f} rows/s")
    if backfill.eta_s is not None:
        parts.append(f"{timedelta(seconds=round(backfill.eta_s))} left")
    return ", ".join(parts)


def _name(backfill: Backfill) -> str:
    return f"backfill {backfill.id} {backfill.consumer} {backfill.table}"


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}

    def show(self, backfill: Backfill) -> None:
        text = progress_text(backfill)
        if backfill.state not in ("active", "completed"):
            text = f"{backfill.state}, {text}"
        if backfill.id not in self._tasks:
            task = self._progress.add_task(_name(backfill), total=100, progress_text=text)
            self._tasks[backfill.id] = task
        self._progress.update(
            self._tasks[backfill.id], completed=backfill.percent, progress_text=text
        )


class _Lines:
    def __init__(self, console: TerminalConsole) -> None:
        self._console = console
        self._said: dict[int, tuple[str, int]] = {}

    def show(self, backfill: Backfill) -> None:
        now = (backfill.state, int(backfill.percent // 10))
        if self._said.get(backfill.id) == now:
            return
        self._said[backfill.id] = now
        has_error = backfill.error is not None and backfill.state in ("failed", "canceled")
        error = f"; {backfill.error}" if has_error else ""
        line = f"{_name(backfill)} {backfill.state}: {progress_text(backfill)}{error}"
        self._console.print(line, markup=False)
