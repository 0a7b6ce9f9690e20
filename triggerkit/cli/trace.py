"""The command `trace`: the whole way of one row, from its commit to its effect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import orjson
import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from triggerkit.cli.options import Json
from triggerkit.consumers.trace import ConsumerTrace, Trace, TracedRun, position_of_run, trace
from triggerkit.settings import Project, Settings
from triggerkit.state.connect import connect, pool

#: As wide as a line gets: a terminal wraps it, where rich would cut off what was measured.
console = Console(highlight=False, soft_wrap=True, width=240)

#: Characters of the bar that shows when something happened between the commit and the end.
BAR_CHARS = 24

#: Characters of a value in the difference that is shown.
VALUE_CHARS = 60

_DATABASE = "SELECT id FROM triggerkit.databases ORDER BY name = %s DESC, id LIMIT 1"


class Step(NamedTuple):
    """A bar of the waterfall; what has not ended yet has no end."""

    what: str
    start: datetime
    end: datetime | None
    outcome: str = ""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("trace")(trace_command)


def trace_command(
    run_or_position: Annotated[
        str, typer.Argument(help="A run's id (run_…), or a position in the log.")
    ],
    consumer: Annotated[str | None, typer.Option("--consumer", help="Only of this one.")] = None,
    json: Json = False,
) -> None:
    """Show the whole way of one change: commit, capture, delivery, runs, with the times of each."""
    if not (run_or_position.isdecimal() or run_or_position.startswith("run_")):
        raise typer.BadParameter(f"{run_or_position!r} is neither a position nor a run's id")
    Project.load().make_importable()
    found = asyncio.run(_find(Settings.load(), run_or_position, consumer))
    if json:
        print(orjson.dumps(found).decode())
    else:
        _print(found)


async def _find(settings: Settings, run_or_position: str, consumer: str | None) -> Trace:
    async with await connect(settings.state_dsn, "triggerkit trace") as state:
        if run_or_position.isdecimal():
            database_id, position = await _database(state, settings), int(run_or_position)
        else:
            database_id, position, own = await position_of_run(state, run_or_position)
            consumer = consumer or own
    async with pool(settings.state_dsn, "triggerkit trace", size=2) as states:
        return await trace(states, database_id, position, consumer)


async def _database(state: psycopg.AsyncConnection, settings: Settings) -> int:
    """The database that DATABASE_URL names, as the state knows it, else the first."""
    name = conninfo_to_dict(settings.source_dsn).get("dbname")
    cursor = await state.execute(_DATABASE, [name])
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


def _print(found: Trace) -> None:
    key = ", ".join(map(str, found.key))
    console.print(
        f"{found.action} of {found.table} ({key}), position {found.position} of {found.database}, "
        f"transaction {found.xid or 'unknown'}, "
        f"committed {found.committed_at:%Y-%m-%d %H:%M:%S.%f} UTC",
        markup=False,
    )
    for line in _difference(found):
        console.print(f"    {line}", markup=False)
    steps = list(_steps(found))
    end = max(step.end or step.start for step in steps)
    whole: dict[str, Any] = {"no_wrap": True, "overflow": "ignore"}
    table = Table(Column("ms", justify="right"), box=None, pad_edge=False)
    for name in ("", "what", "took", "outcome"):
        table.add_column(name, **whole)
    for step in steps:
        table.add_row(
            f"{_ms(found.committed_at, step.start):,.1f}",
            _bar(found.committed_at, end, step),
            escape(step.what),
            "" if step.end in (None, step.start) else f"{_ms(step.start, step.end):,.1f} ms",
            escape(step.outcome),
        )
    console.print(table)
    for way in found.consumers:
        reason = f": {way.reason}" if way.reason else ""
        until = f" until {way.lease_until:%H:%M:%S}" if way.lease_until else ""
        console.print(f"{way.consumer}: {way.state}{until}{reason}", markup=False)
    if not found.consumers:
        console.print("no consumer follows this table")


def _difference(found: Trace) -> Iterator[str]:
    """The old and the new value of each column that changed."""
    if found.fault is not None:
        yield f"cannot be delivered: {found.fault}"
    for name, old in (found.changes or {}).items():
        yield f"{name}: {_value(old)} → {_value((found.record or {}).get(name))}"


def _value(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}…"


def _steps(found: Trace) -> Iterator[Step]:
    yield Step("committed", found.committed_at, found.committed_at)
    yield Step("captured", found.captured_at, found.captured_at, "in the log")
    for way in found.consumers:
        yield from _of_consumer(way)


def _of_consumer(way: ConsumerTrace) -> Iterator[Step]:
    for attempt in way.attempts:
        what = f"{way.consumer}: delivery, attempt {attempt.attempt}"
        if attempt.messages > 1:
            what += f", {attempt.messages} messages"
        outcome = str(attempt.status or "") if attempt.error is None else attempt.error
        yield Step(what, attempt.sent_at, attempt.answered_at, outcome)
    if way.parked is not None:
        parked = way.parked
        yield Step(f"{way.consumer}: parked", parked.parked_at, parked.parked_at, parked.state)
    for run in way.runs:
        yield from _of_run(run)


def _of_run(run: TracedRun) -> Iterator[Step]:
    yield Step(f"{run.id}: accepted", run.created_at, run.created_at, f"{run.task}, {run.status}")
    first = run.attempts[0]["started_at"] if run.attempts else run.started_at
    if first is not None:
        yield Step("  queued", run.created_at, _time(first), run.queue)
    for attempt in run.attempts:
        outcome = attempt["status"] if attempt["error"] is None else attempt["error"]
        yield Step(
            f"  attempt {attempt['attempt']}",
            _time(attempt["started_at"]),
            _time(attempt["finished_at"]),
            outcome,
        )
    if not run.attempts and run.started_at is not None:
        yield Step("  executing", run.started_at, run.finished_at, run.status)


def _time(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _ms(start: datetime, end: datetime | None) -> float:
    return 0.0 if end is None else (end - start).total_seconds() * 1000


def _bar(start: datetime, end: datetime, step: Step) -> str:
    whole = max(_ms(start, end), 0.001)
    first = min(BAR_CHARS - 1, max(0, int(BAR_CHARS * _ms(start, step.start) / whole)))
    last = min(BAR_CHARS, max(first + 1, int(BAR_CHARS * _ms(start, step.end or end) / whole)))
    return f"{' ' * first}{'█' * (last - first)}{' ' * (BAR_CHARS - last)}"
