"""The line of a run that ended, and errors that many runs have alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from rich.markup import escape

from triggerkit.terminal.console import TerminalConsole, counted

#: How a run's status is shown: a mark and a colour.
MARKS = {
    "completed": ("✓", "green"),
    "retrying": ("↻", "yellow"),
    "failed": ("✗", "red"),
    "crashed": ("✗", "red"),
}

#: Seconds in which an error that was shown is counted and not shown again.
TOGETHER_S = 10.0


def run_line(facts: dict[str, Any]) -> str:
    """Return the line of a run's attempt that ended, as markup: what, how, and what comes next."""
    mark, colour = MARKS.get(facts["status"], ("·", "default"))
    items = facts.get("items")
    what = facts.get("key") or (counted(items, "change") if items else "")
    # Of an attempt that is tried again, one time is enough: that of the next.
    took = "" if facts["status"] == "retrying" else f" in {facts['ms']:.0f} ms"
    parts = [
        f"{datetime.now():%H:%M:%S} [{colour}]{mark}[/]",
        escape(facts["task"]),
        *([escape(what)] if what else []),
        f"[dim]{facts['run']}[/]",
        f"{facts['status']}{took}",
    ]
    text = " ".join(parts)
    if facts.get("failed_items"):
        text += f", {facts['failed_items']} to be tried alone"
    if facts.get("retry_in_s") is not None:
        attempt = f"{facts['attempt']}/{facts['max_attempts']}"
        text += f", next attempt in {facts['retry_in_s']:.1f} s ({attempt})"
    return text


def push_line(facts: dict[str, Any]) -> str:
    """Return the line of a push that was taken: to a route of ours by its path alone."""
    parts = urlsplit(facts["url"])
    is_near = parts.hostname in ("127.0.0.1", "::1", "localhost")
    where = parts.path if is_near else facts["url"]
    line = f"POST {where} {facts['status']} in {facts['ms']:.0f} ms, "
    line += counted(facts["items"], "change")
    return f"{line}, {facts['failed_items']:,} failed" if facts["failed_items"] else line


@dataclass(slots=True)
class _Shown:
    """An error that was shown; `again` counts those since."""

    last: str
    forget: asyncio.TimerHandle | None = None
    again: int = 0


@dataclass(slots=True)
class RepeatedErrors:
    """Counts errors of a task that are like one just shown, and tells of them together."""

    console: TerminalConsole
    _shown: dict[tuple[str, str], _Shown] = field(default_factory=dict)

    def is_repeated(self, facts: dict[str, Any]) -> bool:
        """Return whether the error of a run was shown less than ten seconds ago."""
        traceback = facts["error"]["traceback"].rstrip()
        alike = (facts["task"], _place(traceback))
        if (shown := self._shown.get(alike)) is not None:
            shown.again += 1
            return True
        last = traceback.splitlines()[-1] if traceback else facts["status"]
        # Where no loop runs, as in a test of one line, nothing is counted.
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            forget = loop.call_later(TOGETHER_S, self._forgetting(alike))
            self._shown[alike] = _Shown(last, forget)
        return False

    def close(self) -> None:
        """Tell of what was counted until now."""
        for alike, shown in list(self._shown.items()):
            if shown.forget is not None:
                shown.forget.cancel()
            self._forgetting(alike)()

    def _forgetting(self, alike: tuple[str, str]) -> Callable[[], None]:
        def forget() -> None:
            shown = self._shown.pop(alike)
            if shown.again:
                task = escape(alike[0])
                self.console.print(
                    f"[yellow]↻[/] {task} ×{shown.again + 1:,} in {TOGETHER_S:g} s: "
                    f"{escape(shown.last)}"
                )

        return forget


def _place(traceback: str) -> str:
    """Return the frames and the type of a traceback: messages differ from row to row."""
    frames = [line for line in traceback.splitlines() if line.startswith("  File ")]
    last = traceback.splitlines()[-1] if traceback else ""
    return "\n".join([*frames, last.partition(":")[0]])
