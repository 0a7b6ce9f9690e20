"""Show what `triggerkit dev` does: preflight, one line per run, a bar per backfill."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

import orjson
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triggerkit.supervisor.checks import Check
from triggerkit.terminal.console import TerminalConsole, counted
from triggerkit.terminal.run_lines import RepeatedErrors, push_line, run_line

#: Levels of log lines that are shown whatever is not to be shown.
PROBLEMS = ("warning", "error", "critical")


class Console(Protocol):
    """Shows what happens."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def problem(self, text: str) -> None:
        """Something wrong, with its remedy."""

    def check(self, check: Check) -> None:
        """Show a preflight check."""

    def ready(self, ms: float, facts: dict[str, Any]) -> None:
        """Show that all processes run."""

    def line(self, process: str, facts: dict[str, Any]) -> None:
        """Show a line of a child's log."""

    def backfill(self, name: str, done: int, total: int, *, state: str) -> None:
        """Show how far a backfill is; in any other state than `active` it has stopped."""

    def stopping(self, executing: int | None) -> None:
        """Show that runs which execute are finished first: so many, None when that is not known."""

    def close(self) -> None:
        """Nothing more is shown."""


class TextConsole:
    """For people: colours where the terminal has them (and NO_COLOR is not set)."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = TerminalConsole(highlight=False, soft_wrap=True)
        self._errors = RepeatedErrors(self._console)
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("backfill {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=quiet,
        )
        self._bars: dict[str, Any] = {}
        self._told: dict[str, int] = {}

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False)

    def problem(self, text: str) -> None:
        self._console.print(f"[red]✗[/] {escape(text)}")

    def check(self, check: Check) -> None:
        if check.ok:
            self.note(f"  ✓ {check.name}: {check.detail}")
            return
        mark, colour = ("✗", "red") if check.required else ("!", "yellow")
        self._console.print(f"  [{colour}]{mark} {escape(check.name)}: {escape(check.detail)}[/]")
        if check.remedy:
            self._console.print(f"    fix it with: {escape(check.remedy)}")

    def ready(self, ms: float, facts: dict[str, Any]) -> None:
        self.note(f"  serving {facts['url']}")
        self.note(f"  dashboard {facts['dashboard']} (logs in once, within the hour)")
        self._console.print(f"[bold green]ready[/] in {ms:.0f} ms")

    def line(self, process: str, facts: dict[str, Any]) -> None:
        event = facts.get("event")
        if event == "run":
            self._run(facts)
        elif event == "push":
            self._push(facts)
        elif event == "died":
            self.problem(
                f"{process} ended with code {facts['code']}; starting it again in "
                f"{facts['wait_s']:g} s"
            )
        elif event == "unstarted":
            self.problem(
                f"{process} cannot be started ({facts['why']}); trying again in "
                f"{facts['wait_s']:g} s"
            )
        elif event == "connection":
            lost = facts["state"] == "lost"
            mark = "[red]✗[/]" if lost else "[green]✓[/]"
            self._console.print(f"{mark} {process}: {escape(facts['message'])}")
        elif event == "state":
            return
        elif facts.get("level") in PROBLEMS:
            self._console.print(f"[yellow]{process}[/] {escape(str(facts.get('message')))}")
            if "traceback" in facts:
                self._console.print(escape(facts["traceback"]), style="dim")
        else:
            self.note(f"{process} {facts.get('message')}")

    def backfill(self, name: str, done: int, total: int, *, state: str) -> None:
        total = max(total, done)
        if not self._console.is_terminal:
            self._tell_progress(name, done, total, state=state)
            return
        if name not in self._bars:
            self._progress.start()
            self._bars[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._bars[name], completed=done, total=total)
        if state != "active":
            self._progress.remove_task(self._bars.pop(name))
            self.note(f"backfill {name} {_ending(state)}: {counted(done, 'row')}")
            if not self._bars:
                self._progress.stop()

    def stopping(self, executing: int | None) -> None:
        self.note(drain(executing))

    def close(self) -> None:
        self._errors.close()
        if self._bars:
            self._progress.stop()

    def _tell_progress(self, name: str, done: int, total: int, *, state: str) -> None:
        """Print a line per tenth, where no bar can be drawn."""
        tenth = 10 * done // max(total, 1)
        if state != "active":
            self._told.pop(name, None)
            self.note(f"backfill {name} {_ending(state)}: {counted(done, 'row')}")
        elif self._told.get(name) != tenth:
            self._told[name] = tenth
            self.note(f"backfill {name}: {done:,} of {counted(total, 'row')}")

    def _print_wrapped(self, text: str) -> None:
        """Print a line that goes on in the next where it is wider than the terminal, between words:
        only one that is longer than a line is broken."""
        self._console.print(text, soft_wrap=False, overflow="fold", crop=False)

    def _push(self, facts: dict[str, Any]) -> None:
        if not self._quiet:
            text = f"{datetime.now():%H:%M:%S} [dim]→[/] {escape(push_line(facts))}"
            self._print_wrapped(text)

    def _run(self, facts: dict[str, Any]) -> None:
        if self._quiet and facts["status"] == "completed":
            return
        is_repeated = bool(facts.get("error")) and self._errors.is_repeated(facts)
        if is_repeated and facts["status"] == "retrying":
            return
        self._print_wrapped(run_line(facts))
        if facts.get("error") and not is_repeated:
            self._console.print(escape(facts["error"]["traceback"].rstrip()), style="dim")


class JsonConsole:
    """For programs: one JSON object a line."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def note(self, text: str) -> None:
        self._print(event="note", message=text)

    def problem(self, text: str) -> None:
        self._print(event="problem", message=text)

    def check(self, check: Check) -> None:
        self._print(event="check", **asdict(check))

    def ready(self, ms: float, facts: dict[str, Any]) -> None:
        self._print(event="ready", ms=round(ms), **facts)

    def line(self, process: str, facts: dict[str, Any]) -> None:
        self._print(process=process, **facts)

    def backfill(self, name: str, done: int, total: int, *, state: str) -> None:
        facts = {"name": name, "done": done, "total": total, "state": state}
        self._print(event="backfill", **facts, finished=state == "completed")

    def stopping(self, executing: int | None) -> None:
        self._print(event="stopping", executing=executing, message=drain(executing))

    def close(self) -> None:
        return

    def _print(self, **facts: Any) -> None:
        if not self._quiet or _matters(facts):
            print(orjson.dumps(facts, default=str).decode(), flush=True)  # noqa: T201 - its output


def _matters(facts: dict[str, Any]) -> bool:
    """Return whether a line tells of a problem or a failure, or that `dev` is ready."""
    event = facts.get("event")
    if event == "check":
        return not facts["ok"]
    return event in ("ready", "problem", "died") or facts.get("level") in PROBLEMS


def _ending(state: str) -> str:
    return "complete" if state == "completed" else state


def runs(count: int) -> str:
    """So many runs, in words."""
    return counted(count, "run")


def drain(executing: int | None) -> str:
    """Describe what a stop waits for."""
    if executing == 0:
        return "stopping; nothing is executing"
    what = "what runs" if executing is None else runs(executing)
    return f"finishing {what}; Ctrl-C again to force"
