"""Pause, resume and replay consumers, accept their gaps; start, hold and end their backfills."""

from __future__ import annotations

from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.errors import ConfigurationError
from triggerkit.web.api.problems import NotFound
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route


async def pause(asked: Asked) -> Answer:
    """Deliver nothing more to a consumer; what happens meanwhile stays in the log."""
    async with asked.call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.pause(await consumers.find(asked.path("name")))
    return _back(asked)


async def resume(asked: Asked) -> Answer:
    """Deliver to a consumer again, from where it was paused or disabled."""
    async with asked.call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.resume(await consumers.find(asked.path("name")))
    return _back(asked)


async def replay(asked: Asked) -> Answer:
    """Deliver again what the log holds from a place on."""
    place = asked.form.get("from", "").strip()
    if not place:
        raise ConfigurationError("from where? A position, an LSN, a time, or beginning")
    async with asked.call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.replay(await consumers.find(asked.path("name")), place)
    return _back(asked)


async def accept_gap(asked: Asked) -> Answer:
    """Close a consumer's gaps without reading its tables anew."""
    async with asked.call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.accept_gap(await consumers.find(asked.path("name")), None)
    return _back(asked)


async def start_backfill(asked: Asked) -> Answer:
    """Read a consumer's tables for it."""
    async with asked.call.source() as source, asked.call.state() as state:
        await BackfillStore(state, ACTOR).start(source, asked.path("name"), None)
    return _back(asked)


async def change_backfill(asked: Asked) -> Answer:
    """Pause, resume or cancel a backfill."""
    name, given = asked.path("name"), asked.path("id")
    async with asked.call.state() as state:
        store = BackfillStore(state, ACTOR)
        known = {str(one.id): one.id for one in await store.list(all_=True) if one.consumer == name}
        change = {"pause": store.pause, "resume": store.resume, "cancel": store.cancel}
        verb = asked.path("verb")
        if given not in known or verb not in change:
            raise NotFound(f"{name} has no backfill {given} that could be asked to {verb}")
        await change[verb](known[given])
    return _back(asked)


def _back(asked: Asked) -> Moved:
    return Moved(asked.link("consumers", asked.path("name")))


ROUTES = (
    Route("/consumers/{name}/pause", post=pause),
    Route("/consumers/{name}/resume", post=resume),
    Route("/consumers/{name}/replay", post=replay),
    Route("/consumers/{name}/accept-gap", post=accept_gap),
    Route("/consumers/{name}/backfills", post=start_backfill),
    Route("/consumers/{name}/backfills/{id}/{verb}", post=change_backfill),
)
