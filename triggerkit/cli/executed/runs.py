"""`runs`: list, show, tail, cancel, replay, reschedule, errors."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any

import psycopg
import typer

from triggerkit.cli.actor import actor
from triggerkit.cli.executed.run_options import filtered, moment
from triggerkit.cli.executed.run_view import print_run, print_runs, when
from triggerkit.cli.executed.tail import tail
from triggerkit.cli.known_names import warn_of_unknown
from triggerkit.cli.options import Json, Tasks
from triggerkit.cli.run_client import (
    console,
    json_given,
    print_json,
    progress_of,
    with_client,
    with_state,
)
from triggerkit.configuration.moments import moment_ahead, seconds_until
from triggerkit.errors import ConfigurationError, UnknownRun
from triggerkit.project import Project
from triggerkit.runs.admin.browse import MAX_LIMIT, count_of, list_runs, show_run
from triggerkit.runs.admin.control import (
    UNFINISHED,
    Cancellation,
    cancel_run,
    cancel_runs,
    reschedule_run,
)
from triggerkit.runs.admin.error_groups import ErrorGroup, group_errors
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.runs.run import Status
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.tasks.registry import load_tasks
from triggerkit.tasks.replay import FINISHED, Edited, Replayed, Replayer
from triggerkit.terminal.console import counted

#: Runs that are counted before something is done to them; more are told as so many.
MOST_COUNTED = 1_000_000

Ids = Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]...", help="run_…")]
All = Annotated[bool, typer.Option("--all", help="All possible runs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    group = typer.Typer(help="Inspect, cancel, replay and reschedule runs.", no_args_is_help=True)
    group.command("list")(filtered(list_command))
    group.command()(show)
    group.command()(filtered(tail))
    group.command()(filtered(cancel))
    group.command()(filtered(replay))
    group.command()(reschedule)
    group.command()(errors)
    app.add_typer(group, name="runs")


def list_command(
    wanted: RunFilter,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option(help="Continue after this run's id.")] = None,
    json: Json = False,
) -> None:
    """List runs, newest first, and why waiting runs wait."""

    async def work(state: psycopg.AsyncConnection) -> tuple[list[dict[str, Any]], str | None]:
        listed = await list_runs(state, wanted, limit=limit, after=after)
        if not listed[0]:
            await warn_of_unknown(state, wanted)
        return listed

    found, following = with_state(work)
    if json:
        print_json(found)
        return
    print_runs(console, found)
    if following is not None:
        console.print(f"more: --after {following}", markup=False)


def show(run_id: Annotated[str, typer.Argument(help="run_…")], json: Json = False) -> None:
    """Show one run: payload, output, error, and a timeline of attempts, spans and lines."""
    run = with_state(lambda state: show_run(state, run_id))
    if run is None:
        raise UnknownRun(f"no run has the id {run_id!r}; see `triggerkit runs list`")
    if json:
        print_json(run)
    else:
        print_run(console, run)


def cancel(wanted: RunFilter, run_ids: Ids = None, every: All = False, yes: Yes = False) -> None:
    """Cancel runs: waiting runs at once, executing runs through their workers."""
    _one_way(wanted, run_ids, every)
    if run_ids:
        for run_id in dict.fromkeys(run_ids):
            done = with_client(partial(cancel_run, run_id=run_id, actor=actor()))
            told = "its worker stops it" if done.asked else "canceled"
            console.print(f"{run_id}: {told}", markup=False)
        return
    total = _count_agreed("Cancel", wanted, UNFINISHED, yes)
    with progress_of("canceling", total) as progress:

        def work(client: Client) -> Any:
            return cancel_runs(client, wanted, actor(), progress=progress)

        canceled: Cancellation = with_client(work)
    console.print(f"canceled {canceled.canceled:,}, stopping {canceled.asked:,} that execute")


def replay(
    wanted: RunFilter,
    run_ids: Ids = None,
    payload: Annotated[
        str | None, typer.Option(help="Another payload, for one run: JSON or @file.")
    ] = None,
    current: Annotated[
        bool, typer.Option("--current", help="Use the rows as they are now.")
    ] = False,
    every: All = False,
    yes: Yes = False,
    tasks: Tasks = None,
    json: Json = False,
) -> None:
    """Create new runs from old ones, with the same payload, another, or the current rows."""
    _one_way(wanted, run_ids, every)
    if payload is not None and (current or len(run_ids or ()) != 1):
        raise ConfigurationError("--payload is for one run, and without --current")
    edited = None if payload is None else Edited(json_given(payload, "--payload"))
    total = 0 if run_ids else _count_agreed("Replay", wanted, FINISHED, yes)
    known = load_tasks(Project.load(tasks=tasks))

    async def work(client: Client) -> Replayed | list[dict[str, Any]]:
        replayer = Replayer(client, known, actor())
        async with AsyncExitStack() as stack:
            source = None
            if current:
                dsn = Settings.load().source_dsn
                source = await stack.enter_async_context(await connect(dsn, "triggerkit replay"))
            if run_ids:
                return [
                    (await replayer.replay(run_id, edited, source)).as_json()
                    for run_id in dict.fromkeys(run_ids)
                ]
            with progress_of("replaying", total) as progress:
                return await replayer.replay_all(wanted, current=source, progress=progress)

    done = with_client(work)
    if json:
        print_json(done)
    elif isinstance(done, Replayed):
        console.print(f"replayed {counted(done.runs, 'run')}")
    else:
        for handle in done:
            console.print(f"{handle['id']} {handle['task']}", markup=False)
    if isinstance(done, Replayed) and done.refused:
        console.print(f"not replayed: {done.refused:,}; the first: {done.refusal}", markup=False)
        raise typer.Exit(1)


def reschedule(
    run_id: Annotated[str, typer.Argument(help="run_…")],
    when: Annotated[str, typer.Argument(help="now, 30m, 2h, 7d, or 2026-01-31T12:00:00Z")],
) -> None:
    """Have a run that waits start, or be tried again, at another time."""
    try:
        moment_ = moment_ahead(when)
        delay_s = seconds_until(moment_)
    except ValueError as error:
        raise ConfigurationError(f"{when!r} is no time: {error}") from None
    with_client(partial(reschedule_run, run_id=run_id, delay_s=delay_s, actor=actor()))
    told = "starts now" if delay_s == 0 else f"starts {moment_:%Y-%m-%d %H:%M:%S %Z}"
    console.print(f"{run_id}: {told}, if its queue has room", markup=False)


def errors(
    task: Annotated[str | None, typer.Option("--task", help="Only of this task.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Accepted since: 90s, 15m, 2h, 7d or a time.")
    ] = None,
    json: Json = False,
) -> None:
    """Group the errors of runs that ended without success, by type and place."""
    first = moment(since, "--since")

    async def work(state: psycopg.AsyncConnection) -> list[ErrorGroup]:
        groups = await group_errors(state, since=first, task=task)
        if not groups:
            await warn_of_unknown(state, RunFilter(task=task))
        return groups

    found = with_state(work)
    if json:
        print_json(found)
        return
    for group in found:
        console.print(f"{group.count:>6,}  {group.type}: {group.message[:200]}", markup=False)
        console.print(f"        {group.place or 'place unknown'}", markup=False, style="dim")
        console.print(
            f"        {', '.join(group.tasks)}, {when(group.first_at)} to {when(group.last_at)}, "
            f"last: {group.run_id}",
            markup=False,
            style="dim",
        )


def _one_way(wanted: RunFilter, run_ids: list[str] | None, every: bool) -> None:
    ways = [bool(run_ids), not wanted.is_empty, every]
    if sum(ways) != 1:
        raise ConfigurationError("give the ids of runs, or options that say which, or --all")


def _count_agreed(verb: str, wanted: RunFilter, possible: tuple[Status, ...], yes: bool) -> int:
    """Return how many runs it is about, once who calls has agreed."""
    statuses = tuple(s for s in wanted.statuses or possible if s in possible)
    if not statuses:
        raise ConfigurationError(f"{verb.lower()} is for runs that are {', '.join(possible)}")
    meant = RunFilter(**{**_filter_values(wanted), "statuses": statuses})

    async def work(state: psycopg.AsyncConnection) -> int:
        counted = await count_of(state, meant, MOST_COUNTED)
        if not counted:
            await warn_of_unknown(state, wanted)
        return counted

    count = with_state(work)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"to {verb.lower()} {counted(count, 'run')}, confirm with --yes"
            )
        typer.confirm(f"{verb} {counted(count, 'run')}?", abort=True)
    return count


def _filter_values(wanted: RunFilter) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in RunFilter.__slots__}
