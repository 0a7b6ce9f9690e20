"""Parked messages through the API: listed, shown, tried again, discarded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, Field

from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.parked.manage import (
    DeliveryAttempt,
    Parked,
    discard_parked,
    list_parked,
    retry_parked,
    show_parked,
)
from triggerkit.consumers.parked.states import ParkedState
from triggerkit.log.json_object import show_object
from triggerkit.web.api.operation import ACTOR, Call, Given, Page


class ParkedFilter(Given):
    """A selection of parked messages; `cursor` is the `next` of the part before."""

    consumer: str | None = None
    state: ParkedState | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.-]+/\d{1,18}$")] = None


class ParkedMessageInfo(BaseModel):
    """A parked message with its body as it is before a transform, and the pushes that carried it,
    the first one first."""

    message: Parked
    body: Any
    deliveries: list[DeliveryAttempt]


class SeveralMessages(Given):
    """All parked messages of a consumer, or those in one state."""

    consumer: str
    state: ParkedState | None = None


class Counted(BaseModel):
    """The number of messages it was done to."""

    messages: int


async def list_messages(call: Call, query: ParkedFilter) -> Page[Parked]:
    """Parked messages without their bodies, by consumer and position."""
    async with call.state() as state:
        if query.consumer is not None:
            await Consumers(state, ACTOR).find(query.consumer)
        found = await list_parked(
            state,
            consumer=query.consumer,
            state=query.state,
            after=query.cursor,
            limit=query.limit,
        )
    return Page(data=found.messages, next=found.next)


async def show_message(call: Call, consumer: str, position: int) -> ParkedMessageInfo:
    """Return one parked message with its body."""
    async with call.state() as state:
        await Consumers(state, ACTOR).find(consumer)
        found, deliveries = await show_parked(state, consumer, position)
    values = asdict(found)
    body = show_object(values.pop("body").encode(), levels=2)
    return ParkedMessageInfo(message=Parked(**values), body=body, deliveries=deliveries)


async def retry_message(call: Call, consumer: str, position: int) -> Counted:
    """Have one message tried now; its attempts count anew. One that waits behind another, or that
    cannot be sent at all, is a 409."""
    async with call.state() as state:
        return Counted(messages=await retry_parked(state, consumer, ACTOR, position=position))


async def discard_message(call: Call, consumer: str, position: int) -> Counted:
    """Drop one message forever; what waited behind it is tried."""
    async with call.state() as state:
        return Counted(messages=await discard_parked(state, consumer, ACTOR, position=position))


async def retry_messages(call: Call, body: SeveralMessages) -> Counted:
    """Have all parked messages of a consumer tried now, or those in one state."""
    async with call.state() as state:
        found = await retry_parked(state, body.consumer, ACTOR, state=body.state)
    return Counted(messages=found)


async def discard_messages(call: Call, body: SeveralMessages) -> Counted:
    """Drop all parked messages of a consumer forever, or those in one state."""
    async with call.state() as state:
        found = await discard_parked(state, body.consumer, ACTOR, state=body.state)
    return Counted(messages=found)
