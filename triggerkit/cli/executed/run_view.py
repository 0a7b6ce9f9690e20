"""Show runs in the terminal: in lists, and one whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from triggerkit.cli.waterfall import draw
from triggerkit.consumers.trace.way import Bar, RunWay, steps_of_run
from triggerkit.runs.run import RUN_ID_CHARS
from triggerkit.terminal.console import TerminalConsole
from triggerkit.why.row_text import read_row

#: Characters of a task's name and of a row in a list, and of a value that is shown.
TASK_CHARS = 20
ROW_CHARS = 16
VALUE_CHARS = 2_000

#: What a run is shown by, in this order; what it has none of is left out.
_FACTS = (
    "id", "task", "queue", "status", "reason", "attempt", "max_attempts", "waits", "crashes",
    "items", "payload", "output", "error", "idempotency_key", "concurrency_key", "tags",
    "metadata", "source", "priority", "created_at", "scheduled_at", "expires_at", "started_at",
    "finished_at", "cancel_requested_at", "worker", "version", "replay_of", "parent_id", "children",
)  # fmt: skip

_HEAD = f"{'run':<{RUN_ID_CHARS}} {'status':<9} {'task':<{TASK_CHARS}} {'row':<{ROW_CHARS}}"


def print_runs(console: TerminalConsole, runs: Sequence[dict[str, Any]]) -> None:
    """Print a line for each run, and one more for the reason why it waits."""
    console.print(f"{_HEAD} try  created (UTC)", markup=False)
    for run in runs:
        console.print(
            f"{run['id']} {run['status']:<9} {_cut(run['task'], TASK_CHARS)} "
            f"{_cut(row_of(run), ROW_CHARS)} {run['attempt']}/{run['max_attempts']} "
            f"{when(run['created_at'])} {took(run)}".rstrip(),
            markup=False,
        )
        if run["reason"] is not None:
            console.print(f"  {run['reason']}", markup=False, style="dim")


def print_run(console: TerminalConsole, run: dict[str, Any]) -> None:
    """Print all that is known of a run: facts, waterfall, and what it logged."""
    for name in _FACTS:
        value = run[name]
        if value in (None, [], {}) or (value == 0 and name not in ("attempt", "output")):
            continue
        if name == "error":
            told = f"{value['type']}: {value['message']}"
            console.print(f"{name:<19} {told[:VALUE_CHARS]}", markup=False)
            console.print(value["traceback"].rstrip(), markup=False)
            continue
        shown = orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z).decode()
        if isinstance(value, str | datetime):
            shown = str(value)
        console.print(f"{name:<19} {shown[:VALUE_CHARS]}", markup=False)
    console.print()
    draw([Bar("accepted", run["created_at"], run["created_at"]), *steps_of_run(way(run))])
    lines = [entry for entry in run["spans"] if entry["kind"] == "log"]
    if lines:
        console.print()
    for line in lines:
        console.print(line_of(line), markup=False)


def way(run: dict[str, Any]) -> RunWay:
    """Return a run's way, as the waterfall takes it."""
    return RunWay(**{name: run[name] for name in RunWay._fields})


def line_of(line: dict[str, Any]) -> str:
    """Return a line that a run logged."""
    level = "" if line["level"] in (None, "INFO") else f"{line['level']} "
    return f"{line['started_at']:%H:%M:%S.%f}"[:12] + f" [{line['attempt']}] {level}{line['name']}"


def row_of(run: dict[str, Any]) -> str:
    """Return the run's subject: a row, some changes, or a tick."""
    if (run["items"] or 0) > 1:
        return f"{run['items']} changes"
    source = run["source"] or {}
    if (row := read_row(str(source.get("key")))) is not None:
        table, values = row
        return f"{table.removeprefix('public.')} {','.join(values)}"
    return str(source.get("table") or source.get("schedule") or "")


def took(run: dict[str, Any]) -> str:
    """Return the duration of its last attempt, so far if it executes."""
    if run["started_at"] is None or run["status"] in ("queued", "retrying"):
        return ""
    end = run["finished_at"] or datetime.now(UTC)
    return f"{(end - run['started_at']).total_seconds() * 1000:,.0f} ms"


def when(moment: datetime) -> str:
    """Return a time, without its date when that is today."""
    is_recent = datetime.now(UTC) - moment < timedelta(hours=20)
    return f"{moment:%H:%M:%S}" if is_recent else f"{moment:%m-%d %H:%M}"


def _cut(text: str, chars: int) -> str:
    return f"{text if len(text) <= chars else text[: chars - 1] + '…':<{chars}}"
