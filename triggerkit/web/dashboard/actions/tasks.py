"""Start a task by hand, with a payload that is typed."""

from __future__ import annotations

import orjson

from triggerkit.errors import ConfigurationError, UnknownTask, unknown_name
from triggerkit.state.audit import note
from triggerkit.tasks.triggering import TriggerOptions
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route


async def start(asked: Asked) -> Answer:
    """Make a run, once the payload fits the task's type, and show it."""
    name = asked.path("name")
    task = next((task for task in asked.call.tasks if task.name == name), None)
    if task is None:
        raise UnknownTask(unknown_name("task", name, [task.name for task in asked.call.tasks]))
    try:
        payload = orjson.loads(asked.form.get("payload", "").strip() or "null")
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"the payload is no JSON: {error}") from None
    run = task.new_run(payload, TriggerOptions())
    async with asked.call.state() as state:
        await note(state, ACTOR, "trigger", f"task {name}")
    [handle] = await asked.call.client.accept([run])
    return Moved(asked.link("runs", handle.id))


ROUTES = (Route("/tasks/{name}/start", post=start),)
