"""`backfill`: start, list, pause, resume, cancel, watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import orjson
import psycopg
import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.captured.progress import Shown, bar, display, progress_text
from triggerkit.cli.options import Json
from triggerkit.consumers.backfill.store import BackfillProgress, BackfillStore, Started
from triggerkit.consumers.definition import TableName
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)

T = TypeVar("T")

#: Seconds between two looks of `watch`.
WATCH_S = 0.5

Id = Annotated[int, typer.Argument(help="Number of the backfill, from `triggerkit backfill list`.")]

_SLOT = """
SELECT d.slot_name FROM triggerkit.consumers c JOIN triggerkit.databases d ON d.id = c.database_id
WHERE c.name = %s
"""

_IS_STREAMED = "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active"


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    group = typer.Typer(
        help="Read existing rows into the log, for a consumer.", no_args_is_help=True
    )
    for command in (start, pause, resume, cancel, watch):
        group.command()(command)
    group.command("list")(list_command)
    app.add_typer(group, name="backfill")


def start(
    consumer: Annotated[str, typer.Argument(help="The consumer's name.")],
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="schema.table; repeatable. Default: all of the consumer's."),
    ] = None,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", help="Column that orders and bounds the rows.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Only rows whose sort value is at least this.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Only rows whose sort value is less than this.")
    ] = None,
    rows_per_second: Annotated[
        int | None, typer.Option("--rows-per-second", min=1, help="Maximum rows per second.")
    ] = None,
) -> None:
    """Start a backfill; the stream reads the rows while changes continue."""
    tables = [TableName.parse(name) for name in table] if table else None
    settings = Settings.load()

    async def connected() -> tuple[list[Started], bool]:
        async with (
            await connect(settings.source_dsn, "triggerkit backfill") as source,
            await connect(settings.state_dsn, "triggerkit backfill") as state,
        ):
            started = await BackfillStore(state, actor()).start(
                source,
                consumer,
                tables,
                sort_by=sort_by,
                from_=from_,
                until=until,
                rows_per_s=rows_per_second,
            )
            async with CaptureNames.of(settings).slots(source) as slots:
                return started, await _is_streamed(slots, state, consumer)

    started, is_streamed = asyncio.run(connected())
    for backfill in started:
        console.print(f"started backfill {backfill.id} of {backfill.table}", markup=False)
        if backfill.warning is not None:
            console.print(f"warning: {backfill.warning}", markup=False)
    if not is_streamed:
        console.print(
            "no stream is running: it begins once `triggerkit stream` or `triggerkit dev` runs"
        )


def pause(backfill_id: Id) -> None:
    """Pause a backfill after the current chunk."""
    asyncio.run(_changed(lambda store: store.pause(backfill_id)))
    print(f"paused backfill {backfill_id}")


def resume(backfill_id: Id) -> None:
    """Resume a backfill that was paused or failed."""
    asyncio.run(_changed(lambda store: store.resume(backfill_id)))
    print(f"resumed backfill {backfill_id}")


def cancel(backfill_id: Id) -> None:
    """Cancel a backfill for good; rows read so far are delivered."""
    asyncio.run(_changed(lambda store: store.cancel(backfill_id)))
    print(f"canceled backfill {backfill_id}")


def list_command(
    json: Json = False,
    all_: Annotated[bool, typer.Option("--all", help="Include those that ended.")] = False,
) -> None:
    """List open backfills and their progress."""
    found = asyncio.run(_changed(lambda store: store.list(all_=all_)))
    if json:
        print(orjson.dumps([_as_json(backfill) for backfill in found]).decode())
        return
    table = Table("id", "consumer", "table", "state", "", "rows", box=None, pad_edge=False)
    for backfill in found:
        name = f"{backfill.table}{_range(backfill)}"
        table.add_row(
            str(backfill.id),
            backfill.consumer,
            name,
            backfill.state,
            bar(backfill),
            progress_text(backfill),
        )
    # A program that reads it wants a line per backfill, however long.
    console.print(table)
    for backfill in found:
        if backfill.error is not None and backfill.state in ("failed", "canceled"):
            console.print(f"backfill {backfill.id}: {backfill.error}", markup=False)


def watch(
    backfill_id: Annotated[int | None, typer.Argument(help="Only this backfill.")] = None,
) -> None:
    """Show progress until all open backfills, or this one, have ended."""
    if asyncio.run(_watched(backfill_id)):
        raise typer.Exit(1)


async def _watched(backfill_id: int | None) -> bool:
    """Show until nothing is active any more; whether one failed."""
    async with await connect(Settings.load().state_dsn, "triggerkit backfill") as state:
        store = BackfillStore(state, actor())
        first = {b.id: b for b in await store.list(all_=backfill_id is not None)}
        if backfill_id is not None and backfill_id not in first:
            raise TriggerkitError(
                f"there is no backfill {backfill_id}; `triggerkit backfill list --all` shows them"
            )
        watched = first.keys() if backfill_id is None else {backfill_id}
        with display(console) as screen:
            while True:
                found = [b for b in await store.list(all_=True) if b.id in watched]
                _show(screen, found)
                if not any(b.state == "active" for b in found):
                    return any(b.state == "failed" for b in found)
                await asyncio.sleep(WATCH_S)


def _show(screen: Shown, found: list[BackfillProgress]) -> None:
    for backfill in found:
        screen.show(backfill)


async def _changed(act: Callable[[BackfillStore], Awaitable[T]]) -> T:
    async with await connect(Settings.load().state_dsn, "triggerkit backfill") as state:
        return await act(BackfillStore(state, actor()))


async def _is_streamed(
    slots: psycopg.AsyncConnection, state: psycopg.AsyncConnection, consumer: str
) -> bool:
    slot = await (await state.execute(_SLOT, [consumer])).fetchone()
    cursor = await slots.execute(_IS_STREAMED, slot)
    return await cursor.fetchone() is not None


def _as_json(backfill: BackfillProgress) -> dict[str, Any]:
    values = asdict(backfill)
    values["from"] = values.pop("from_")
    return {**values, "percent": backfill.percent, "eta_s": backfill.eta_s}


def _range(backfill: BackfillProgress) -> str:
    if backfill.from_ is None and backfill.until is None:
        return ""
    ends = [f"from {backfill.from_}"] if backfill.from_ is not None else []
    ends += [f"until {backfill.until}"] if backfill.until is not None else []
    return f" ({backfill.sort_by} {' '.join(ends)})"
