"""`models`: writes the Python types of tables' rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from triggerkit.consumers.definition import TableName
from triggerkit.errors import ConfigurationError
from triggerkit.replication.columns import TableColumns, read_columns
from triggerkit.replication.models import Style, write_models
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(models)


def models(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="schema.table.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; the default is to print.")
    ] = None,
    style: Annotated[Style, typer.Option("--style", help="Kind of type to write.")] = "pydantic",
) -> None:
    """Write a typed model of a table's rows, as messages contain them."""
    names = list(dict.fromkeys(map(TableName.parse, tables)))
    text = write_models(asyncio.run(_read(names)), style)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise ConfigurationError(f"--output {output}: {error.strerror}") from error
    print(f"wrote {output}")


async def _read(tables: list[TableName]) -> list[TableColumns]:
    async with await connect(Settings.load().source_dsn, "triggerkit models") as source:
        return [await read_columns(source, *table) for table in tables]
