"""The command `trace`: the whole way of one row, from its commit to its effect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict

from triggerkit.cli.options import Json
from triggerkit.cli.waterfall import draw
from triggerkit.consumers.trace.changes import Trace, trace
from triggerkit.consumers.trace.runs import position_of_run
from triggerkit.consumers.trace.way import steps_of_change
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool
from triggerkit.terminal.console import TerminalConsole

#: As wide as a line gets: a terminal wraps it, where rich would cut off what was measured.
console = TerminalConsole(highlight=False, soft_wrap=True, width=240)

#: Characters of a value in the difference that is shown.
VALUE_CHARS = 60

_DATABASE = "SELECT id FROM triggerkit.databases ORDER BY name = %s DESC, id LIMIT 1"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("trace")(trace_command)


def trace_command(
    run_or_position: Annotated[
        str, typer.Argument(help="Id of a run (run_…), or position in the log.")
    ],
    consumer: Annotated[str | None, typer.Option("--consumer", help="Only this consumer.")] = None,
    json: Json = False,
) -> None:
    """Follow one change through commit, capture, delivery and runs, with timings."""
    if not (run_or_position.isdecimal() or run_or_position.startswith("run_")):
        raise typer.BadParameter(f"{run_or_position!r} is neither a position nor a run's id")
    Project.load().make_importable()
    found = asyncio.run(_find(Settings.load(), run_or_position, consumer))
    if json:
        print(orjson.dumps(found).decode())
    else:
        _print(found)


async def _find(settings: Settings, run_or_position: str, consumer: str | None) -> Trace:
    run_id = None if run_or_position.isdecimal() else run_or_position
    async with await connect(settings.state_dsn, "triggerkit trace") as state:
        if run_or_position.isdecimal():
            database_id, position = await _database(state, settings), int(run_or_position)
        else:
            database_id, position, own = await position_of_run(state, run_or_position)
            consumer = consumer or own
    async with pool(settings.state_dsn, "triggerkit trace", size=2) as states:
        return await trace(states, database_id, position, consumer, run_id=run_id)


async def _database(state: psycopg.AsyncConnection, settings: Settings) -> int:
    """Return the database that DATABASE_URL names, as the state knows it, else the first."""
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
    draw(list(steps_of_change(found)))
    for way in found.consumers:
        reason = f": {way.reason}" if way.reason else ""
        until = f" until {way.lease_until:%H:%M:%S} UTC" if way.lease_until else ""
        console.print(f"{way.consumer}: {way.state}{until}{reason}", markup=False)
    if not found.consumers:
        console.print("no consumer follows this table")


def _difference(found: Trace) -> Iterator[str]:
    """Yield the old and the new value of each column that changed."""
    if found.fault is not None:
        yield f"cannot be delivered: {found.fault}"
    for name, old in (found.changes or {}).items():
        yield f"{name}: {_value(old)} → {_value((found.record or {}).get(name))}"


def _value(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}…"
