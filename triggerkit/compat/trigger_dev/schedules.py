"""Schedules by the SDK: those that code declares, and those that clients make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import orjson

from triggerkit.compat.trigger_dev.call import ACTOR, SdkCall
from triggerkit.compat.trigger_dev.given import NewSchedule, body_of
from triggerkit.compat.trigger_dev.shapes import page_of, schedule_of
from triggerkit.errors import ConfigurationError, InvalidPayload
from triggerkit.runs.admin.schedules import (
    MadeSchedule,
    change_schedule,
    delete_schedule,
    find_schedule,
    list_schedules,
    make_schedule,
    pause_schedule,
    resume_schedule,
)
from triggerkit.runs.schedules import Tick
from triggerkit.state.short_key import short_key
from triggerkit.tasks.task import Task


async def list_all_schedules(sdk: SdkCall) -> dict[str, Any]:
    """Return the schedules, by name."""
    page, size = sdk.page()
    async with sdk.call.state() as state:
        found = await list_schedules(state)
    return page_of([schedule_of(schedule) for schedule in found], page, size)


async def retrieve_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Return one schedule."""
    name = await _name(sdk)
    async with sdk.call.state() as state:
        return schedule_of(await find_schedule(state, name))


async def deactivate_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Make no more runs by the clock."""
    return schedule_of(await pause_schedule(sdk.call.client, await _name(sdk), ACTOR))


async def activate_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Make runs by the clock again; one that does stays as it is."""
    name = await _name(sdk)
    async with sdk.call.state() as state:
        found = await find_schedule(state, name)
    if found.paused_at is not None:
        found = await resume_schedule(sdk.call.client, found.name, ACTOR)
    return schedule_of(found)


async def list_timezones(sdk: SdkCall) -> dict[str, Any]:
    """Return the zones that schedules may be in."""
    leaves_utc_out = sdk.request.query_params.get("excludeUtc") == "true"
    zones = available_timezones() - ({"UTC"} if leaves_utc_out else set())
    return {"timezones": sorted(zones)}


async def create_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Make a schedule, or change the one that has its key."""
    body = await body_of(sdk.request, NewSchedule)
    if body.deduplicationKey is None:
        raise ConfigurationError(
            "deduplicationKey: give one; a second call with it changes the first"
        )
    key = short_key(body.deduplicationKey)
    return schedule_of(await make_schedule(sdk.call.client, _made(sdk, body), key, ACTOR))


async def update_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Change a schedule that a client made."""
    body = await body_of(sdk.request, NewSchedule)
    made = _made(sdk, body)
    return schedule_of(await change_schedule(sdk.call.client, await _name(sdk), made, ACTOR))


async def remove_schedule(sdk: SdkCall) -> dict[str, Any]:
    """Delete a schedule that a client made."""
    name = await _name(sdk)
    await delete_schedule(sdk.call.client, name, ACTOR)
    return {"id": name}


async def _name(sdk: SdkCall) -> str:
    """Return the name of the schedule in the path, where its deduplication key may stand."""
    given = sdk.path["id"]
    async with sdk.call.state() as state:
        found = await list_schedules(state)
    by_key = {schedule.deduplication_key: schedule.name for schedule in found}
    is_name = given in {schedule.name for schedule in found}
    return given if is_name else by_key.get(short_key(given), given)


def _made(sdk: SdkCall, body: NewSchedule) -> MadeSchedule:
    task = sdk.task(body.task)
    _require_scheduled(task)
    return MadeSchedule(
        task=task.name,
        queue=task.queue,
        max_attempts=task.retry.max_attempts,
        cron=body.cron,
        timezone=body.timezone,
        ttl_s=task.ttl_s,
        priority=task.priority,
        external_id=body.externalId,
    )


def _require_scheduled(task: Task[Any, Any, Any]) -> None:
    """See that a task takes what the clock sends.

    Raises:
        ConfigurationError: it takes something else, and each run would fail.
    """
    shape = task.payload_type.shape
    if not (shape == "none" or (shape == "plain" and _takes_tick(task))):
        raise ConfigurationError(
            f"task: {task.name} cannot be scheduled: it takes no parameter then, or a Tick"
        )


def _takes_tick(task: Task[Any, Any, Any]) -> bool:
    try:
        task.payload_type.read(orjson.dumps(Tick("schedule", datetime.now(UTC))))
    except InvalidPayload:
        return False
    return True
