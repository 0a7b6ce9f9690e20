"""The options that say which runs are meant, the same for every command that takes them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args

import typer

from triggerkit.errors import ConfigurationError, suggested
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import Status

_STATUSES = get_args(Status)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _fields(
    task: Annotated[str | None, typer.Option("--task", help="Only of this task.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="Only of this queue.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help=f"Only in this status; repeatable: {', '.join(_STATUSES)}."),
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    consumer: Annotated[
        str | None, typer.Option("--consumer", help="Only of this consumer's changes.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Only of this table's rows: schema.table.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Only of the row with this key, with --table.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Accepted since: 90s, 15m, 2h, 7d or a time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Accepted before: 90s, 15m, 2h, 7d or a time.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", help="Only with this type of error.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="Only of this schedule.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Only items of this run's batch.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--id", help="Only runs whose id contains this.")
    ] = None,
) -> RunFilter:
    return RunFilter(
        task=task,
        queue=queue,
        statuses=_statuses(status),
        tag=tag,
        consumer=consumer,
        table=table,
        key=key,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        error=error,
        schedule=schedule,
        batch=batch,
        text=text,
    )


def _statuses(given: list[str] | None) -> Any:
    wanted = tuple(",".join(given or ()).split(",")) if given else ()
    for status in wanted:
        if status not in _STATUSES:
            meant = suggested(status, _STATUSES) or ";"
            raise ConfigurationError(
                f"--status {status}: unknown status{meant} must be one of {', '.join(_STATUSES)}"
            )
    return wanted


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of a filter in place of its parameter `wanted`."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(_fields, eval_str=True).parameters

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        wanted = _fields(**{name: given.pop(name) for name in options})
        command(wanted=wanted, **given)

    parameters = [p for p in own.parameters.values() if p.name != "wanted"]
    both = sorted([*parameters, *options.values()], key=lambda p: p.default is not p.empty)
    wrapper.__signature__ = own.replace(parameters=both)  # type: ignore[attr-defined]
    return wrapper


def moment(text: str | None, option: str) -> datetime | None:
    """Return a time as it is given: how long ago, or in ISO 8601, of UTC unless it says otherwise.

    Raises:
        ConfigurationError: it is neither.
    """
    if text is None:
        return None
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago is not None:
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text}: must be an age, such as 15m or 7d, or a time, such as "
            "2026-11-22T08:00:00Z"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
