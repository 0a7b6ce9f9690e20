"""Options that several commands share, each with its environment twin."""

from __future__ import annotations

from typing import Annotated

import typer

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
    str | None, typer.Option("--host", envvar="TRIGGERKIT_HOST", help="Address to listen on.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", envvar="TRIGGERKIT_PORT", min=0, max=65535, help="Port to listen on."),
]
