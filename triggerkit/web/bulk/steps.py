"""One step of a bulk: a bounded part of what fits its filter, from its cursor on.

A step can be done again: what is canceled, tried or dropped is so already, and a run that was
replayed by the bulk is not replayed by it once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

from triggerkit.consumers.parked.manage import list_parked
from triggerkit.consumers.parked.several import discard_several, retry_several
from triggerkit.runs.admin.control import cancel_next, unfinished_of
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.state.connect import connect
from triggerkit.tasks.replay import Replayer, Tasks
from triggerkit.web.bulk.store import Action, Bulk, Part

#: Most runs, and most messages, of one step.
STEP_RUNS = 500
STEP_MESSAGES = 200


def run_filter(given: Mapping[str, Any]) -> RunFilter:
    """Return the filter that was described by `RunFilter.as_json`."""
    values = dict(given)
    for name in ("since", "until"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    return RunFilter(**{**values, "statuses": tuple(values.get("statuses", ()))})


async def _cancel(client: Client, tasks: Tasks, bulk: Bulk) -> Part:  # noqa: ARG001 - as others
    wanted = run_filter(bulk.filter)
    if not unfinished_of(wanted).statuses:
        return Part()
    done, looked = await cancel_next(client, wanted, limit=STEP_RUNS, before=bulk.cursor)
    return Part(looked, done.canceled + done.asked, next=done.next)


async def _replay(client: Client, tasks: Tasks, bulk: Bulk) -> Part:
    async with AsyncExitStack() as stack:
        source = None
        if bulk.current:
            opened = await connect(client.settings.source_dsn, "triggerkit bulk")
            source = await stack.enter_async_context(opened)
        done = await Replayer(client, tasks, bulk.actor).replay_next(
            run_filter(bulk.filter),
            limit=STEP_RUNS,
            cursor=bulk.cursor,
            current=source,
            mark=bulk.tag,
        )
    return Part(done.looked, done.runs, done.refused, done.refusal, done.next)


async def _messages(client: Client, tasks: Tasks, bulk: Bulk) -> Part:  # noqa: ARG001 - as others
    async with client.pool.connection() as state:
        page = await list_parked(
            state,
            consumer=bulk.filter.get("consumer"),
            state=bulk.filter.get("state"),
            after=bulk.cursor,
            limit=STEP_MESSAGES,
        )
        if not page.messages:
            return Part()
        # Those of one consumer, whose places in the log are locked meanwhile.
        consumer = page.messages[0].consumer
        found = [one for one in page.messages if one.consumer == consumer]
        meant = [one.position for one in found if one.parked_at <= bulk.created_at]
        change = retry_several if bulk.action == "retry messages" else discard_several
        done = await change(state, consumer, meant)
    is_last = page.next is None and len(found) == len(page.messages)
    following = None if is_last else f"{consumer}/{found[-1].position}"
    return Part(len(meant), done.changed, done.refused, done.refusal, following)


#: What does a step of each action.
STEPS: Final[Mapping[Action, Callable[[Client, Tasks, Bulk], Awaitable[Part]]]] = {
    "cancel runs": _cancel,
    "replay runs": _replay,
    "retry messages": _messages,
    "discard messages": _messages,
}
