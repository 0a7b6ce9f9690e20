"""`tunnel`: have the messages of local endpoints on this machine; and who may, by tokens."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from select import select
from typing import Annotated

import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.captured.secret_input import secret_given
from triggerkit.cli.options import MAX_PORT, Json
from triggerkit.cli.run_client import console, print_json, print_table, with_state
from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.tunnels.tokens import add_token, list_tokens, remove_token
from triggerkit.errors import ConfigurationError
from triggerkit.tunnel.command import TunnelOptions, run_tunnel
from triggerkit.tunnel.display import Filter, Output
from triggerkit.tunnel.server import Server

UserName = Annotated[str, typer.Argument(help="Whose token it is.")]

#: The environment twin of --token, which is where a token should be.
TOKEN = "TRIGGERKIT_TUNNEL_TOKEN"  # noqa: S105 - a name


class Action(StrEnum):
    """What a message tells of a row."""

    insert = "insert"
    update = "update"
    delete = "delete"
    read = "read"
    truncate = "truncate"


def register(app: typer.Typer) -> None:
    """Add the command, with its own, to `app`."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(tunnel)
    tokens = typer.Typer(help="Say who may open tunnels.", no_args_is_help=True)
    tokens.command("add")(tokens_add)
    tokens.command("list")(tokens_list)
    tokens.command("remove")(tokens_remove)
    group.add_typer(tokens, name="tokens")
    app.add_typer(group, name="tunnel")


def tunnel(
    context: typer.Context,
    ports: Annotated[
        list[str] | None,
        typer.Option(
            "--ports",
            envvar="TRIGGERKIT_TUNNEL_PORTS",
            help="PORT:ENDPOINT, such as 3001:local_endpoint; several by commas, or repeated.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="TRIGGERKIT_TUNNEL_SERVER",
            help="Where triggerkit serve is, such as wss://app.example.com.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar=TOKEN, help="Your token: env:NAME or @file."),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            envvar="TRIGGERKIT_TUNNEL_SHARE",
            help="Share endpoints with others who share them: each gets the messages of other "
            "keys.",
        ),
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            envvar="TRIGGERKIT_TUNNEL_TABLE",
            help="Print only deliveries of this table; repeatable. All are made.",
        ),
    ] = None,
    action: Annotated[
        list[Action] | None,
        typer.Option(
            "--action",
            envvar="TRIGGERKIT_TUNNEL_ACTION",
            help="Print only deliveries of this action; repeatable.",
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            "--output",
            envvar="TRIGGERKIT_TUNNEL_OUTPUT",
            help="A line for each delivery, problems alone, or JSON.",
        ),
    ] = Output.compact,
) -> None:
    """Deliver the messages of local endpoints to ports of this machine."""
    if context.invoked_subcommand is not None:
        return
    options = TunnelOptions(
        ports=_ports(ports or []),
        server=Server.parse(_required(server, "--server", "wss://app.example.com")),
        token=_token(context, token),
        share=share,
        output=output,
        wanted=Filter(
            frozenset(str(TableName.parse(name)) for name in table or ()),
            frozenset(action or ()),
        ),
    )
    asyncio.run(run_tunnel(options, _write))


def tokens_add(name: UserName, json: Json = False) -> None:
    """Make a user's token, which is printed this once."""
    token = with_state(lambda state: add_token(state, name, actor()))
    if json:
        print_json({"name": name, "token": token})
        return
    # The token alone, for scripts to take; the rest is for whoever sees it.
    print(token, flush=True)
    print(f"added {name}; the token is shown this once", file=sys.stderr)


def tokens_list(json: Json = False) -> None:
    """List who may open tunnels, and to which endpoints they have one now."""
    found = with_state(list_tokens)
    if json:
        print_json(found)
        return
    listed = Table("user", "added", "last used", "tunnels to", box=None, pad_edge=False)
    for one in found:
        used = "" if one.used_at is None else f"{one.used_at:%Y-%m-%d %H:%M:%S}"
        added = f"{one.created_at:%Y-%m-%d %H:%M:%S}"
        listed.add_row(one.name, added, used, ", ".join(one.endpoints))
    print_table(listed)


def tokens_remove(name: UserName) -> None:
    """Revoke a user's token: its tunnels end at once."""
    with_state(lambda state: remove_token(state, name, actor()))
    console.print(f"removed {name}", markup=False)


def _write(line: str) -> None:
    """Write a line to stdout itself: a thread that waits in there holds none of Python's locks, so
    that the process can end meanwhile."""
    descriptor = sys.stdout.fileno()
    left = f"{line}\n".encode(sys.stdout.encoding, "backslashreplace")
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Another program at the same terminal may have it so.
            select([], [descriptor], [])


def _required(value: str | None, option: str, example: str) -> str:
    if not value:
        twin = f"TRIGGERKIT_TUNNEL_{option.removeprefix('--').upper()}"
        raise ConfigurationError(f"{option} is missing; give it, or {twin}, such as {example}")
    return value


def _token(context: typer.Context, given: str | None) -> str:
    text = _required(given, "--token", "@token.txt, which has what `tokens add` printed")
    source = context.get_parameter_source("token")
    is_typed = source is not None and source.name == "COMMANDLINE"
    is_place = text.startswith(("@", "env:"))
    token = secret_given(text, "the token") if is_typed or is_place else text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("--token is no token: it is empty, or has other characters")
    return token


def _ports(given: list[str]) -> dict[str, int]:
    """Return the port of each endpoint.

    Raises:
        ConfigurationError: one cannot be read, or an endpoint has two.
    """
    ports: dict[str, int] = {}
    for part in (part.strip() for text in given for part in text.split(",")):
        port, colon, endpoint = part.partition(":")
        if not (colon and endpoint and port.isdecimal() and 1 <= int(port) <= MAX_PORT):
            raise ConfigurationError(
                f"--ports {part!r} is not understood; write PORT:ENDPOINT, such as "
                "3001:local_endpoint"
            )
        if endpoint in ports:
            raise ConfigurationError(f"--ports: {endpoint} is given twice; it has one port")
        ports[endpoint] = int(port)
    if not ports:
        _required(None, "--ports", "3001:local_endpoint")
    return ports
