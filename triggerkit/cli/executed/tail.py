"""`runs tail`: runs as they come and end, or what one run says, while it happens."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import psycopg
import typer

from triggerkit.cli.executed.run_view import line_of, row_of, took
from triggerkit.cli.known_names import warn_of_unknown
from triggerkit.cli.options import Json
from triggerkit.cli.run_client import console, print_json, with_state
from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.follow import Follower, RunFollower
from triggerkit.runs.run import FINAL

#: Seconds between two looks.
POLL_S = 1.0


def tail(
    wanted: RunFilter,
    run_id: Annotated[
        str | None, typer.Argument(help="Follow the lines and spans of this run until it ends.")
    ] = None,
    json: Json = False,
) -> None:
    """Follow runs as they come and change, or the lines and spans of one run."""
    if run_id is None:
        with_state(lambda state: _follow(state, wanted, json))
    else:
        with_state(lambda state: _follow_one(state, run_id, json))


async def _follow(state: psycopg.AsyncConnection, wanted: RunFilter, json: bool) -> None:
    if not (await list_runs(state, wanted, limit=1))[0]:
        await warn_of_unknown(state, wanted)
    follower = Follower(state, wanted)
    await follower.begin()
    while True:
        for run in await follower.look():
            if json:
                print_json(run)
            else:
                console.print(_changed(run), markup=False)
        await asyncio.sleep(POLL_S)


async def _follow_one(state: psycopg.AsyncConnection, run_id: str, json: bool) -> None:
    follower, seen, has_ended = RunFollower(state, run_id), None, False
    while True:
        run, said = await follower.look()
        for entry in said:
            if json:
                print_json(entry)
            else:
                console.print(_said(entry), markup=False)
        if (run["status"], run["attempt"]) != seen and not json:
            console.print(_changed(run), markup=False)
        seen = run["status"], run["attempt"]
        # What it said last is written a little after its end.
        if has_ended and not said:
            return
        has_ended = run["status"] in FINAL
        await asyncio.sleep(POLL_S)


def _changed(run: dict[str, Any]) -> str:
    at = run["finished_at"] or run["started_at"] or run["created_at"]
    parts = [f"{at:%H:%M:%S}", run["id"], run["task"], row_of(run), run["status"]]
    if run["attempt"] > 1 or run["error"] is not None:
        parts.append(f"({run['attempt']}/{run['max_attempts']})")
    if run["status"] in FINAL:
        parts.append(took(run))
    if run["status"] in ("retrying", "failed", "crashed", "timed_out") and run["error"]:
        message = str(run["error"]["message"]).partition("\n")[0][:200]
        parts.append(f"{run['error']['type']}: {message}")
    elif run["reason"] is not None:
        parts.append(run["reason"])
    return " ".join(filter(None, parts))


def _said(entry: dict[str, Any]) -> str:
    if entry["kind"] == "log":
        return line_of(entry)
    ms = (entry["ended_at"] - entry["started_at"]).total_seconds() * 1000
    error = f": {entry['error']}" if entry["error"] else ""
    return f"{line_of({**entry, 'level': None})} took {ms:,.1f} ms{error}"
