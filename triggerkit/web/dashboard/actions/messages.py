"""Try parked messages again, or drop them: one, or all of a consumer."""

from __future__ import annotations

from triggerkit.consumers.parked.manage import discard_parked, retry_parked
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route
from triggerkit.web.dashboard.pages.messages import position_of


async def retry(asked: Asked) -> Answer:
    """Have one message tried now; its attempts count anew."""
    async with asked.call.state() as state:
        await retry_parked(state, asked.path("consumer"), ACTOR, position=position_of(asked))
    return Moved(asked.link("messages", consumer=asked.path("consumer")))


async def discard(asked: Asked) -> Answer:
    """Drop one message forever; what waited behind it is tried."""
    async with asked.call.state() as state:
        await discard_parked(state, asked.path("consumer"), ACTOR, position=position_of(asked))
    return Moved(asked.link("messages", consumer=asked.path("consumer")))


async def retry_all(asked: Asked) -> Answer:
    """Have all parked messages of a consumer tried now."""
    async with asked.call.state() as state:
        await retry_parked(state, asked.path("consumer"), ACTOR)
    return Moved(asked.link("consumers", asked.path("consumer")))


async def discard_all(asked: Asked) -> Answer:
    """Drop all parked messages of a consumer forever."""
    async with asked.call.state() as state:
        await discard_parked(state, asked.path("consumer"), ACTOR)
    return Moved(asked.link("consumers", asked.path("consumer")))


ROUTES = (
    Route("/consumers/{consumer}/messages/retry", post=retry_all),
    Route("/consumers/{consumer}/messages/discard", post=discard_all),
    Route("/messages/{consumer}/{position}/retry", post=retry),
    Route("/messages/{consumer}/{position}/discard", post=discard),
)
