"""Options that several commands share, each with its environment twin."""

from __future__ import annotations

from typing import Annotated

import typer

from triggerkit.configuration.addresses import bare_host, is_service_link

#: The greatest port there is.
MAX_PORT = 65535


def _port(given: str) -> int | None:
    # In the environment it may be Kubernetes' own.
    if is_service_link(given):
        return None
    if not given.isdecimal() or int(given) > MAX_PORT:
        raise typer.BadParameter(f"it is not a port: a number of 0 to {MAX_PORT}")
    return int(given)


def _host(given: str) -> str:
    try:
        return bare_host(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


App = Annotated[
    str | None,
    typer.Option("--app", envvar="TRIGGERKIT_APP", help="ASGI app, such as app.main:app."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--tasks", envvar="TRIGGERKIT_TASKS", help="Module with tasks; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", envvar="TRIGGERKIT_QUIET", help="Print only problems.")
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        envvar="TRIGGERKIT_HOST",
        parser=_host,
        metavar="TEXT",
        help="Address to listen on.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        envvar="TRIGGERKIT_PORT",
        parser=_port,
        metavar="INTEGER",
        help="Port to listen on.",
    ),
]
