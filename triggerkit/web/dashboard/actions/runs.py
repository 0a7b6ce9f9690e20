"""Replay, cancel and reschedule one run."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from triggerkit.configuration.moments import moment_ahead, seconds_until
from triggerkit.errors import ConfigurationError, InvalidPayload
from triggerkit.runs.admin.control import cancel_run, reschedule_run
from triggerkit.tasks.replay import Edited, Replayer
from triggerkit.web.api.executed.run_models import Run
from triggerkit.web.api.executed.runs import show_one_run
from triggerkit.web.dashboard.actions.payload_form import (
    edited_text,
    problem_lines,
    typed_payload,
)
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown


async def ask_replay(asked: Asked) -> Answer:
    """Offer a run's payload for editing, and its row as it is now."""
    run = await show_one_run(asked.call, asked.path("id"))
    return _replay_page(asked, run, edited_text(asked, run.payload))


async def replay(asked: Asked) -> Answer:
    """Make a new run, with the same payload, the one that was typed, or the current rows; show it,
    or what is wrong with what was typed."""
    run_id, given = asked.path("id"), asked.form.get("with", "original")
    edited = None
    try:
        if given == "edited":
            edited = Edited(typed_payload(asked))
        async with AsyncExitStack() as stack:
            source = None
            if given == "current":
                source = await stack.enter_async_context(asked.call.source())
            tasks = {task.name: task for task in asked.call.tasks}
            replayer = Replayer(asked.call.client, tasks, ACTOR)
            handle = await replayer.replay(run_id, edited, source, once=asked.form_name)
    except InvalidPayload as error:
        run = await show_one_run(asked.call, run_id)
        typed = asked.form.get("payload") if given == "edited" else None
        text = edited_text(asked, run.payload) if typed is None else typed
        return _replay_page(asked, run, text, error)
    return Moved(asked.link("runs", handle.id))


async def cancel(asked: Asked) -> Answer:
    """Cancel a run that has not ended."""
    await cancel_run(asked.call.client, asked.path("id"), ACTOR)
    return Moved(asked.link("runs", asked.path("id")))


async def reschedule(asked: Asked) -> Answer:
    """Have a run that waits start at another time, or now."""
    when = asked.form.get("when", "").strip()
    try:
        delay_s = seconds_until(moment_ahead(when))
    except ValueError as error:
        raise ConfigurationError(f"when: {error}") from None
    await reschedule_run(asked.call.client, asked.path("id"), delay_s, ACTOR)
    return Moved(asked.link("runs", asked.path("id")))


def _replay_page(
    asked: Asked, run: Run, text: str | None, error: InvalidPayload | None = None
) -> Shown:
    known = next((task for task in asked.call.tasks if task.name == run.task), None)
    values: dict[str, Any] = {
        "run": run,
        "text": text,
        "is_known": known is not None,
        "problems": [] if error is None else problem_lines(error),
        "has_row": (run.source or {}).get("key") is not None or bool(run.items),
    }
    status = 200 if error is None else 422
    return Shown("run_replay.html", f"Replay {run.id}", values, status, is_live=False)


ROUTES = (
    Route("/runs/{id}/replay", ask_replay, replay),
    Route("/runs/{id}/cancel", post=cancel),
    Route("/runs/{id}/reschedule", post=reschedule),
)
