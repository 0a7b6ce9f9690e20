"""`consumers`: list, show, create, edit, pause, resume, replay, accept-gap, delete."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.captured.declaring import declaration_of
from triggerkit.cli.options import Json
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.editing import Editor
from triggerkit.consumers.declare.manage import Consumers, cursors_of
from triggerkit.consumers.definition import Kind, TableName
from triggerkit.consumers.gap import open_gaps
from triggerkit.consumers.health import consumer_health
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, TriggerkitError
from triggerkit.lsn import Lsn
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.tasks.registry import check_direct, load_tasks
from triggerkit.terminal.console import TerminalConsole, counted

console = TerminalConsole(highlight=False, soft_wrap=True)

group = typer.Typer(help="Create, inspect and change consumers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The consumer's name.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Field of the definition, such as batch_size=100 or actions='[\"insert\"]'."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    for command in (show, create, edit, pause, resume, replay, accept_gap, delete):
        group.command()(command)
    group.command("list")(list_consumers)
    app.add_typer(group, name="consumers")


def list_consumers(json: Json = False) -> None:
    """List consumers and their lag."""

    async def connected() -> list[Any]:
        async with await connect(Settings.load().state_dsn, "triggerkit consumers") as state:
            return await consumer_health(state)

    found = asyncio.run(connected())
    if json:
        print(orjson.dumps(found).decode())
        return
    table = Table("consumer", "kind", "state", "lag", "parked", box=None, pad_edge=False)
    for health in found:
        lag = f"{counted(health.lag_messages, 'message')}, {health.lag_seconds:.1f} s"
        table.add_row(health.name, health.kind, health.state, lag, str(health.parked))
    console.print(table)


def show(
    name: Name,
    json: Json = False,
    toml: Annotated[
        bool, typer.Option("--toml", help="Print what declares it in triggerkit.toml.")
    ] = False,
) -> None:
    """Show one consumer: its definition and its position in each partition of the log."""
    if toml:
        print(asyncio.run(_declaration(name)))
        return

    async def connected() -> dict[str, Any]:
        async with _consumers() as (consumers, state):
            stored = await consumers.find(name)
            return {
                "name": stored.name,
                "state": stored.state,
                "declared_in": stored.managed_by,
                "endpoint": stored.endpoint,
                "definition": stored.definition.as_json(),
                "cursors": await cursors_of(state, stored.id),
                "gaps": [
                    {**asdict(gap), "remedy": gap.remedy(stored.name)}
                    for gap in (await open_gaps(state, stored.id)).get(stored.id, [])
                ],
            }

    found = asyncio.run(connected())
    if json:
        print(orjson.dumps(found).decode())
        return
    for key in ("name", "state", "declared_in", "endpoint"):
        console.print(f"{key.replace('_', ' '):<16} {found[key]}", markup=False)
    for key, value in found["definition"].items():
        if value not in (None, [], "") and key != "name":
            console.print(f"{key:<16} {orjson.dumps(value).decode()}", markup=False)
    for gap in found["gaps"]:
        start, end = (
            "an unknown LSN" if lsn is None else Lsn(lsn)
            for lsn in (gap["from_lsn"], gap["to_lsn"])
        )
        until = "it goes on" if gap["ended_at"] is None else f"until {end}"
        what = f"{gap['table'] or 'all tables'}: {gap['cause']} (from {start}, {until})"
        console.print(f"{'gap':<16} {what}", markup=False)
        console.print(f"{'':<16} mend it with: {gap['remedy']}", markup=False)
    places = ", ".join(f"{c['partition']}: {c['position']}" for c in found["cursors"])
    console.print(f"{'position':<16} {places}", markup=False)


def create(
    name: Name,
    table: Annotated[list[str], typer.Option("--table", help="schema.table; repeatable.")],
    kind: Annotated[str, typer.Option(help="rows or changes.")] = "changes",
    endpoint: Annotated[
        str | None, typer.Option(help="Endpoint to push to; without one the consumer is pulled.")
    ] = None,
    fields: Fields = None,
) -> None:
    """Create a consumer, and the publication and slot if they are missing."""
    checked: Kind = "rows" if kind == "rows" else "changes"
    if kind != checked:
        raise ConfigurationError(f"--kind {kind!r}: must be 'rows' or 'changes'")
    values = {"kind": kind, "tables": table, "endpoint": endpoint, **_parsed(fields)}
    _warn(asyncio.run(_edited(lambda editor: editor.create(name, values))))
    console.print(f"created consumer {name}", markup=False)


def edit(name: Name, fields: Fields = None, yes: Yes = False) -> None:
    """Change fields of a consumer and keep the others."""
    values = _parsed(fields)
    if not values:
        raise ConfigurationError("say what to change, such as --set batch_size=100")
    _warn(asyncio.run(_edited(lambda editor: editor.edit(name, values, may_lose=yes))))
    console.print(f"changed consumer {name}", markup=False)


def pause(name: Name) -> None:
    """Stop delivery; the log keeps what happens meanwhile."""

    async def connected() -> None:
        async with _consumers() as (consumers, _):
            await consumers.pause(await consumers.find(name))

    asyncio.run(connected())
    console.print(f"paused consumer {name}", markup=False)


def resume(name: Name) -> None:
    """Resume delivery where it stopped."""

    async def connected() -> None:
        async with _consumers() as (consumers, _):
            await consumers.resume(await consumers.find(name))

    asyncio.run(connected())
    console.print(f"resumed consumer {name}", markup=False)


def replay(
    name: Name,
    start: Annotated[
        str, typer.Option("--from", help="'beginning' (of the log), a position, or a time.")
    ],
    yes: Yes = False,
) -> None:
    """Deliver the log again from a position; its tasks run again."""
    _confirm(f"Deliver all messages of {name} again, from {start}?", yes)

    async def connected() -> tuple[int, int]:
        async with _consumers() as (consumers, _):
            rewound = await consumers.replay(await consumers.find(name), start)
            return rewound.first_position, rewound.entries

    first, entries = asyncio.run(connected())
    until = "1 entry" if entries == 1 else f"{entries:,} entries"
    console.print(f"replaying {name} from position {first}: {until} to the log's end")


def accept_gap(
    name: Name,
    table: Annotated[
        str | None, typer.Option("--table", help="schema.table; default: all of its gaps.")
    ] = None,
) -> None:
    """Close a consumer's gap without reading its tables anew: what is missing stays missing."""

    async def connected() -> int:
        async with _consumers() as (consumers, _):
            named = None if table is None else str(TableName.parse(table))
            return await consumers.accept_gap(await consumers.find(name), named)

    count = asyncio.run(connected())
    console.print(f"closed {count} gap{'s' if count > 1 else ''} of {name}", markup=False)


def delete(name: Name, yes: Yes = False) -> None:
    """Delete a consumer, its position in the log, its parked messages and deliveries."""
    _confirm(f"Delete consumer {name}, its position in the log and its parked messages?", yes)

    async def connected() -> str:
        async with _consumers() as (consumers, _):
            stored = await consumers.find(name)
            await consumers.delete(stored)
            return stored.managed_by

    declared_in = asyncio.run(connected())
    console.print(f"deleted consumer {name}", markup=False)
    if declared_in != "api":
        place = "a task's on=" if declared_in == "code" else "triggerkit.toml"
        console.print(f"it is declared in {place}: the next `apply` or `dev` creates it again")


async def _declaration(name: str) -> str:
    async with _consumers() as (consumers, state):
        return await declaration_of(state, await consumers.find(name))


@asynccontextmanager
async def _consumers() -> AsyncIterator[tuple[Consumers, Any]]:
    async with await connect(Settings.load().state_dsn, "triggerkit consumers") as state:
        yield Consumers(state, actor()), state


async def _edited(work: Callable[[Editor], Awaitable[list[str]]]) -> list[str]:
    settings = Settings.load()
    async with (
        await connect(settings.source_dsn, "triggerkit consumers") as source,
        await connect(settings.state_dsn, "triggerkit consumers") as state,
    ):
        keyring = Keyring(settings.encryption_keys)
        return await work(
            Editor(
                source,
                state,
                keyring,
                settings.public_url,
                actor(),
                CaptureNames.of(settings),
                _check_task,
            )
        )


def _check_task(declared: Declared) -> None:
    """See that the task of a direct consumer is there, where the project's tasks are known."""
    if declared.definition.task is None:
        return
    project = Project.load()
    project.make_importable()
    try:
        tasks = load_tasks(project)
    except TriggerkitError as error:
        _warn([f"whether there is such a task is not known: {error}"])
        return
    check_direct([declared], tasks)


def _parsed(fields: list[str] | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for given in fields or []:
        name, equals, text = given.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {given!r}: must be field=value")
        try:
            values[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            values[name] = text
    return values


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise TriggerkitError(
            "nothing was changed: confirm with --yes, since this is not a terminal"
        )
    typer.confirm(question, abort=True)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
