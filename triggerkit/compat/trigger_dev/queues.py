"""Queues by the SDK."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from triggerkit.compat.trigger_dev.call import ACTOR, SdkCall
from triggerkit.compat.trigger_dev.given import QueueLimit, QueuePause, body_of
from triggerkit.compat.trigger_dev.shapes import page_of, queue_of
from triggerkit.errors import ConfigurationError, UnknownQueue
from triggerkit.runs.admin.queues import (
    QueueInfo,
    find_queue,
    limit_queue,
    list_queues,
    pause_queue,
    resume_queue,
)
from triggerkit.tasks.queue import Queue


async def list_all_queues(sdk: SdkCall) -> dict[str, Any]:
    """Return the queues, by name."""
    page, size = sdk.page()
    async with sdk.call.state() as state:
        found = await list_queues(state)
    return page_of([queue_of(queue) for queue in found], page, size)


async def retrieve_queue(sdk: SdkCall) -> dict[str, Any]:
    """Return one queue; of a task that never ran, an empty one."""
    kind = sdk.request.query_params.get("type", "id")
    name = _queue_name(sdk, kind)
    async with sdk.call.state() as state:
        try:
            found = await find_queue(state, name)
        except UnknownQueue:
            if name not in {task.queue for task in sdk.call.tasks}:
                raise
            found = QueueInfo(name)
    return _shown(found, kind)


async def pause_one_queue(sdk: SdkCall) -> dict[str, Any]:
    """Pause or resume a queue; one that is so already stays so."""
    body = await body_of(sdk.request, QueuePause)
    name = _queue_name(sdk, body.type)
    client = sdk.call.client
    if body.action == "pause":
        return _shown(await pause_queue(client, name, ACTOR), body.type)
    async with sdk.call.state() as state:
        found = await find_queue(state, name)
    if found.paused_at is not None:
        found = await resume_queue(client, name, ACTOR)
    return _shown(found, body.type)


async def override_limit(sdk: SdkCall) -> dict[str, Any]:
    """Set how many runs of a queue go on at once."""
    body = await body_of(sdk.request, QueueLimit)
    if body.concurrencyLimit is None:
        raise ConfigurationError("concurrencyLimit: give a number from 1 on")
    return await _limited(sdk, body)


async def reset_limit(sdk: SdkCall) -> dict[str, Any]:
    """Take back a limit that was set here; one that code declares is not changed from here."""
    return await _limited(sdk, await body_of(sdk.request, QueueLimit))


async def _limited(sdk: SdkCall, body: QueueLimit) -> dict[str, Any]:
    name = _queue_name(sdk, body.type)
    async with sdk.call.state() as state:
        known = {queue.name: queue for queue in await list_queues(state)}.get(name)
    rate = None
    if known is not None and known.rate_limit and known.rate_period_s:
        rate = (known.rate_limit, known.rate_period_s)
    found = await limit_queue(
        sdk.call.client, name, ACTOR, concurrency=body.concurrencyLimit, rate=rate
    )
    return _shown(found, body.type)


def _queue_name(sdk: SdkCall, kind: str) -> str:
    """Return the name of the queue in the path: of a task it is that of the task's queue."""
    # A slash is encoded twice by the SDK.
    text = unquote(sdk.path["name"])
    if kind == "task":
        return sdk.task(text).queue
    return Queue(text.removeprefix("queue_") if kind == "id" else text).name


def _shown(queue: QueueInfo, kind: str) -> dict[str, Any]:
    return queue_of(queue, "task" if kind == "task" else "custom")
