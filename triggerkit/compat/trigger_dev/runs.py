"""Runs by the SDK: retrieve, list, cancel, replay, reschedule."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.datastructures import QueryParams

from triggerkit.compat.trigger_dev.batches import find_batch
from triggerkit.compat.trigger_dev.call import ACTOR, SdkCall
from triggerkit.compat.trigger_dev.durations import read_span
from triggerkit.compat.trigger_dev.given import (
    MAX_BODY_BYTES,
    Replay,
    Reschedule,
    body_of,
    read_as,
)
from triggerkit.compat.trigger_dev.payloads.super_json import read_packet
from triggerkit.compat.trigger_dev.shapes import STATUSES, listed_run, whole_run
from triggerkit.configuration.moments import seconds_until
from triggerkit.errors import ConfigurationError, UnknownRun, UnknownTask
from triggerkit.runs.admin.browse import list_runs, show_run, summaries_of
from triggerkit.runs.admin.control import cancel_if_unfinished, reschedule_run
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import Status
from triggerkit.tasks.replay import Edited, Replayer
from triggerkit.web.body import read_body

#: Runs of a page unless it says how many, and at most.
PAGE, MOST = 10, 100

#: Statuses of the SDK that no run here ever has.
_NEVER: Final = frozenset({"PENDING_VERSION", "DEQUEUED", "WAITING", "SYSTEM_FAILURE"})

#: The fields of a filter by the SDK's names; of each, one value is looked for at a time.
_FIELDS: Final = {
    "filter[taskIdentifier]": "task",
    "filter[tag]": "tag",
    "filter[schedule]": "schedule",
    "filter[queue]": "queue",
}

_TIMES: Final = {
    "filter[createdAt][from]": "since",
    "filter[createdAt][to]": "until",
    "filter[createdAt][period]": "since",
}

_BATCH: Final = "filter[batch]"

#: Which is false for every run here.
_TEST: Final = "filter[isTest]"

_PARAMETERS: Final = frozenset(
    {*_FIELDS, *_TIMES, "filter[status]", _BATCH, _TEST, "page[size]", "page[after]"}
)


async def retrieve_run(sdk: SdkCall) -> dict[str, Any]:
    """Return one run whole."""
    return await _whole(sdk, sdk.path["id"])


async def list_all_runs(sdk: SdkCall) -> dict[str, Any]:
    """Return runs that fit, the newest first."""
    query = sdk.request.query_params
    wanted = _filter(sdk, query)
    if wanted is None:
        return {"data": [], "pagination": {}}
    limit = _size(query)
    async with sdk.call.state() as state:
        if _BATCH in query:
            batch = await find_batch(state, query[_BATCH])
            wanted = replace(wanted, runs=tuple(batch.runs or ("",)))
        rows, after = await list_runs(state, wanted, limit=limit, after=query.get("page[after]"))
    pagination = {} if after is None else {"next": after}
    return {"data": [listed_run(row) for row in rows], "pagination": pagination}


async def cancel_one(sdk: SdkCall) -> dict[str, Any]:
    """Cancel a run; one that has ended stays as it is."""
    await cancel_if_unfinished(sdk.call.client, sdk.path["id"], ACTOR)
    return {"id": sdk.path["id"], "message": "Run canceled"}


async def replay_one(sdk: SdkCall) -> dict[str, Any]:
    """Make a new run of one, with its payload and options but for those that are given."""
    raw = await read_body(sdk.request, MAX_BODY_BYTES, of_any_type=True)
    given = read_as(Replay, raw or b"{}")
    edited = None
    if "payload" in given.model_fields_set:
        edited = Edited(read_packet(given.payload, given.payloadType))
    asked = given.as_asked()
    if "debounce" in asked:
        raise ConfigurationError("debounce works only with a single trigger")
    once = sdk.once if "idempotency_key" not in asked else None
    tasks = {task.name: task for task in sdk.call.tasks}
    replayer = Replayer(sdk.call.client, tasks, ACTOR)
    handle = await replayer.replay(sdk.path["id"], edited, once=once, asked=asked)
    return {"id": handle.id}


async def reschedule_one(sdk: SdkCall) -> dict[str, Any]:
    """Have a run that waits start at another time."""
    delay = (await body_of(sdk.request, Reschedule)).until()
    try:
        delay_s = seconds_until(delay) if isinstance(delay, datetime) else delay
    except ValueError as error:
        raise ConfigurationError(f"delay: {error}") from None
    await reschedule_run(sdk.call.client, sdk.path["id"], delay_s, ACTOR)
    return await _whole(sdk, sdk.path["id"])


async def _whole(sdk: SdkCall, run_id: str) -> dict[str, Any]:
    async with sdk.call.state() as state:
        row = await show_run(state, run_id)
        if row is None:
            raise UnknownRun(f"no run has the id {run_id!r}; was it removed by retention?")
        wanted = [child["id"] for child in row["children"]]
        if row["parent_id"] is not None:
            wanted.append(row["parent_id"])
        around = {one["id"]: one for one in await summaries_of(state, wanted)} if wanted else {}
    parent = around.pop(row["parent_id"], None)
    return whole_run(row, parent, list(around.values()))


def _filter(sdk: SdkCall, query: QueryParams) -> RunFilter | None:
    """Return what is looked for; None when no run can fit."""
    for name in query:
        if name not in _PARAMETERS:
            raise ConfigurationError(f"{name} is not offered; runs are listed by " + _offered())
    values: dict[str, Any] = {
        field: _one(name, query[name]) for name, field in _FIELDS.items() if name in query
    }
    if "task" in values:
        # Of a task that is not there any more, runs may be.
        with suppress(UnknownTask):
            values["task"] = sdk.task(values["task"]).name
    if "queue" in values and values["queue"].startswith("task/"):
        values["queue"] = sdk.task(values["queue"].removeprefix("task/")).queue
    values |= {field: _time(name, query[name]) for name, field in _TIMES.items() if name in query}
    if query.get(_TEST) == "true":
        return None
    if "filter[status]" not in query:
        return RunFilter(**values)
    statuses = _statuses(query["filter[status]"].split(","))
    return RunFilter(**values, statuses=statuses) if statuses else None


def _statuses(names: list[str]) -> tuple[Status, ...]:
    for name in names:
        if name not in _NEVER and name not in STATUSES.values():
            known = ", ".join(sorted({*STATUSES.values(), *_NEVER}))
            raise ConfigurationError(f"filter[status]: {name!r} is not one of {known}")
    return tuple(status for status, name in STATUSES.items() if name in names)


def _one(name: str, text: str) -> str:
    if "," in text:
        raise ConfigurationError(f"{name}: one at a time; ask for each by itself")
    return text


def _time(name: str, text: str) -> datetime:
    try:
        if name.endswith("[period]"):
            return datetime.now(UTC) - timedelta(seconds=read_span(text))
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _size(query: QueryParams) -> int:
    text = query.get("page[size]", str(PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST):
        raise ConfigurationError(f"page[size]: a page has 1 to {MOST} runs")
    return int(text)


def _offered() -> str:
    return ", ".join(sorted(_PARAMETERS))
