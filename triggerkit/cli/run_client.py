"""Share among the commands about runs: the client, who calls, and progress."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psycopg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from triggerkit.errors import ConfigurationError
from triggerkit.log.json_object import read_exactly
from triggerkit.runs.client import Client
from triggerkit.runs.session import by_index
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.terminal.console import TerminalConsole

T = TypeVar("T")

console = TerminalConsole(highlight=False, soft_wrap=True)


def with_state(work: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
    """Work with the state database."""

    async def connected() -> T:
        dsn = by_index(Settings.load().state_dsn)
        async with await connect(dsn, "triggerkit runs") as state:
            return await work(state)

    return asyncio.run(connected())


def with_client(work: Callable[[Client], Awaitable[T]]) -> T:
    """Work with the state database and the transport."""

    async def connected() -> T:
        client = await Client.open(Settings.load())
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(connected())


def print_json(value: Any) -> None:
    """Print `value`, whose dataclasses orjson knows, on one line."""
    print(orjson.dumps(value).decode())


def json_given(text: str, option: str) -> Any:
    """Return the JSON of an option, or of the file that it names by `@file`.

    Raises:
        ConfigurationError: it cannot be read, or is no JSON.
    """
    source = option
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{source} cannot be read: {error}") from error
    try:
        return read_exactly(text.encode())
    except ValueError as error:
        raise ConfigurationError(f"{source} is not JSON: {error}") from error


def print_table(table: Table) -> None:
    """Print a table; where no terminal limits it, with a line for each row, however long."""
    console.print(table)


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a bar on a terminal, nothing elsewhere; told how many were done since it was told
    last."""
    stderr = TerminalConsole(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.advance(bar, done)
