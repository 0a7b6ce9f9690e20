"""Start a task by hand: with a payload that is typed, or with a real row."""

from __future__ import annotations

from typing import Any

from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.backfill.sample import sample_message
from triggerkit.errors import InvalidPayload, TriggerkitError, UnknownTask, unknown_name
from triggerkit.state.audit import note
from triggerkit.tasks.task import Task
from triggerkit.tasks.triggering import TriggerOptions
from triggerkit.web.dashboard.actions.payload_form import (
    edited_text,
    problem_lines,
    typed_payload,
)
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown


async def ask(asked: Asked) -> Answer:
    """Offer a payload to type, or that of a row: the one of a key, or the last one by its key."""
    task = _task(asked)
    may_change = asked.session is not None and asked.session.may_change
    if "table" not in asked.query or not may_change:
        return _page(asked, task, "")
    try:
        payload = await _of_row(asked, task)
    except TriggerkitError as error:
        return _page(asked, task, "", about_row=str(error))
    text = edited_text(asked, payload)
    if text is None:
        return _page(asked, task, "", about_row="Its row is too large to be edited here, or hidden")
    return _page(asked, task, text)


async def start(asked: Asked) -> Answer:
    """Make a run, once the payload fits the task's type, and show it; else what does not fit."""
    task = _task(asked)
    once: TriggerOptions = {} if asked.form_name is None else {"idempotency_key": asked.form_name}
    try:
        run = task.new_run(typed_payload(asked), once)
    except InvalidPayload as error:
        return _page(asked, task, asked.form.get("payload", ""), error=error)
    [handle] = await asked.call.client.accept([run])
    if not handle.duplicate:
        async with asked.call.state() as state:
            await note(state, ACTOR, "trigger", f"task {task.name}")
    return Moved(asked.link("runs", handle.id))


async def _of_row(asked: Asked, task: Task[Any, Any, Any]) -> Any:
    table = TableName.parse(asked.query["table"])
    async with asked.call.source() as source, asked.call.state() as state:
        key = asked.query.get("key")
        message = await sample_message(source, state, table, key, task.name)
    return {"data": [message]} if task.payload_type.shape == "batch" else message


def _page(
    asked: Asked,
    task: Task[Any, Any, Any],
    text: str,
    *,
    error: InvalidPayload | None = None,
    about_row: str | None = None,
) -> Shown:
    takes_rows = task.payload_type.shape in ("batch", "change")
    tables = list(task.on.tables) if task.on else []
    values = {
        "task": task,
        "text": text,
        "problems": [] if error is None else problem_lines(error),
        "about_row": about_row,
        "takes_rows": takes_rows,
        "tables": tables,
        "table": asked.query.get("table") or next(iter(tables), ""),
        "key": asked.query.get("key", ""),
    }
    is_wrong = error is not None or about_row is not None
    return Shown("task_test.html", f"Test {task.name}", values, 422 if is_wrong else 200, False)


def _task(asked: Asked) -> Task[Any, Any, Any]:
    name = asked.path("name")
    task = next((task for task in asked.call.tasks if task.name == name), None)
    if task is None:
        raise UnknownTask(unknown_name("task", name, [task.name for task in asked.call.tasks]))
    return task


ROUTES = (Route("/tasks/{name}/test", ask), Route("/tasks/{name}/start", post=start))
