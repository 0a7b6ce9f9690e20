"""Pause and resume queues and schedules, and start a schedule's run."""

from __future__ import annotations

from triggerkit.runs.admin.queues import pause_queue, resume_queue
from triggerkit.runs.admin.schedules import pause_schedule, resume_schedule, run_schedule
from triggerkit.tasks.queue import Queue
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route


async def pause(asked: Asked) -> Answer:
    """Start no more runs of a queue."""
    await pause_queue(asked.call.client, Queue(asked.path("name")).name, ACTOR)
    return Moved(asked.link("queues"))


async def resume(asked: Asked) -> Answer:
    """Start the runs of a queue again."""
    await resume_queue(asked.call.client, asked.path("name"), ACTOR)
    return Moved(asked.link("queues"))


async def pause_times(asked: Asked) -> Answer:
    """Make no more runs of a schedule."""
    await pause_schedule(asked.call.client, asked.path("name"), ACTOR)
    return Moved(asked.link("schedules"))


async def resume_times(asked: Asked) -> Answer:
    """Make the runs of a schedule again."""
    await resume_schedule(asked.call.client, asked.path("name"), ACTOR)
    return Moved(asked.link("schedules"))


async def run_now(asked: Asked) -> Answer:
    """Make a run of a schedule, and show it."""
    run = await run_schedule(asked.call.client, asked.path("name"), ACTOR, asked.form_name)
    return Moved(asked.link("runs", run.id))


ROUTES = (
    Route("/queues/{name}/pause", post=pause),
    Route("/queues/{name}/resume", post=resume),
    Route("/schedules/{name}/pause", post=pause_times),
    Route("/schedules/{name}/resume", post=resume_times),
    Route("/schedules/{name}/run", post=run_now),
)
