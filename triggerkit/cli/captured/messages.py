"""`messages`: list, show, retry and discard what is parked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import orjson
import psycopg
import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.known_names import warn_of_unknown_consumer
from triggerkit.cli.options import Json
from triggerkit.consumers.parked.manage import (
    DeliveryAttempt,
    Parked,
    ParkedPage,
    discard_parked,
    list_parked,
    retry_parked,
    show_parked,
)
from triggerkit.consumers.parked.states import ParkedState
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.terminal.console import TerminalConsole

T = TypeVar("T")

console = TerminalConsole(highlight=False, soft_wrap=True)

group = typer.Typer(help="Inspect, retry and discard parked messages.", no_args_is_help=True)

Consumer = Annotated[str, typer.Argument(help="The consumer's name.")]
Position = Annotated[int | None, typer.Argument(help="The message's position in the log.")]
All = Annotated[bool, typer.Option("--all", help="All messages of the consumer.")]
State = Annotated[ParkedState | None, typer.Option("--state", help="Only those in this state.")]


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    group.command("list")(list_messages)
    for command in (show, retry, discard):
        group.command()(command)
    app.add_typer(group, name="messages")


def list_messages(
    consumer: Annotated[str | None, typer.Option(help="Only of this consumer.")] = None,
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    after: Annotated[
        str | None, typer.Option(help="Continue after `next` of the previous list.")
    ] = None,
    json: Json = False,
) -> None:
    """List parked messages."""

    async def work(connection: psycopg.AsyncConnection) -> ParkedPage:
        found = await list_parked(
            connection, consumer=consumer, state=state, after=after, limit=limit
        )
        if not found.messages:
            await warn_of_unknown_consumer(connection, consumer)
        return found

    page = _connected(work)
    if json:
        print(orjson.dumps({"data": page.messages, "next": page.next}).decode())
        return
    names = ("consumer", "position", "state", "attempts", "due (UTC)", "key", "reason")
    table = Table(*names, box=None, pad_edge=False)
    for found in page.messages:
        table.add_row(
            found.consumer,
            str(found.position),
            found.state,
            str(found.attempts),
            f"{found.due_at:%H:%M:%S}" if found.state == "failing" else "",
            found.key,
            found.reason,
        )
    console.print(table)
    if page.next is not None:
        console.print(f"more: --after {page.next}", markup=False)


def show(
    consumer: Consumer,
    position: Annotated[int, typer.Argument(help="The message's position in the log.")],
    json: Json = False,
) -> None:
    """Show one parked message, with its body and the pushes that carried it."""
    found, attempts = _connected(lambda connection: show_parked(connection, consumer, position))
    if json:
        print(orjson.dumps({"message": found, "attempts": attempts}).decode())
        return
    for name in Parked.__slots__:
        console.print(f"{name:<10} {getattr(found, name)}", markup=False)
    for attempt in attempts:
        console.print(_line(attempt), markup=False)
    console.print(found.body, markup=False)


def retry(
    consumer: Consumer, position: Position = None, every: All = False, state: State = None
) -> None:
    """Retry parked messages now; their attempts count from the start."""
    _one_or_all(position, every)
    count = _connected(
        lambda connection: retry_parked(
            connection, consumer, actor(), position=position, state=state
        )
    )
    console.print(f"retrying {_messages(count)} of {consumer} now", markup=False)


def discard(
    consumer: Consumer,
    position: Position = None,
    every: All = False,
    state: State = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop parked messages permanently; messages that waited behind them are sent."""
    _one_or_all(position, every)
    what = "all parked messages" if position is None else f"position {position}"
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Discard {what} of {consumer}? They will never be delivered.", abort=True)
    count = _connected(
        lambda connection: discard_parked(
            connection, consumer, actor(), position=position, state=state
        )
    )
    console.print(f"discarded {_messages(count)} of {consumer}", markup=False)


def _connected(work: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with await connect(Settings.load().state_dsn, "triggerkit messages") as connection:
            return await work(connection)

    return asyncio.run(connected())


def _one_or_all(position: int | None, every: bool) -> None:
    if (position is None) is not every:
        raise ConfigurationError("give a position, or --all")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _line(attempt: DeliveryAttempt) -> str:
    answer = attempt.error or f"answered {attempt.status}"
    with_others = f" with {attempt.messages - 1} others" if attempt.messages > 1 else ""
    return (
        f"{attempt.sent_at:%Y-%m-%d %H:%M:%S} UTC, attempt {attempt.attempt}{with_others}: {answer}"
    )
