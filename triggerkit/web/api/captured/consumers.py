"""Consumers through the API: made, shown, edited, paused, rewound, deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
from pydantic import BaseModel, Field, PlainSerializer, StrictInt, StrictStr, create_model

from triggerkit.consumers.declare.declaration import Manager
from triggerkit.consumers.declare.editing import Editor
from triggerkit.consumers.declare.manage import Consumers, cursors_of
from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.consumers.gap import Gap, open_gaps
from triggerkit.consumers.health import ConsumerHealth, consumer_health, with_losses
from triggerkit.consumers.retention import Outlook, outlook
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.errors import UnknownConsumer
from triggerkit.state.reading import Reads, Together, rows_of
from triggerkit.tasks.registry import check_direct
from triggerkit.web.api.operation import ACTOR, Call, Given, Page

#: As it is stored: one that makes runs directly has nothing of pushes.
Shown = Annotated[ConsumerDefinition, PlainSerializer(lambda one: one.as_json())]


class CursorInfo(BaseModel):
    """A place in a partition of the log; partition -1 stands for all."""

    partition: int
    position: int


class ConsumerInfo(BaseModel):
    """A consumer: what it is, who declared it, its places in the log, and its open gaps."""

    name: str
    state: str
    managed_by: Manager
    endpoint: str | None
    definition: Shown
    cursors: list[CursorInfo]
    gaps: list[Gap]


class ChangedConsumer(ConsumerInfo):
    """A consumer as it is now, and what is to be warned of."""

    warnings: list[str]


class NewConsumer(ConsumerDefinition):
    """A definition with a name; without an endpoint the consumer is pulled."""

    name: Annotated[str, *ConsumerDefinition.model_fields["name"].metadata]


class ReplayFrom(Given):
    """The start of a replay."""

    from_: Annotated[
        StrictInt | StrictStr,
        Field(
            alias="from",
            description="beginning (of the log), a position, or a time in ISO 8601",
        ),
    ]


def _nothing() -> None:
    return None


class AcceptGap(Given):
    """Which gaps are accepted: all, or those of one table."""

    table: Annotated[StrictStr, Field(default_factory=_nothing, description="schema.table")]


class Replay(BaseModel):
    """The first position that is delivered again, how many entries there are from it to the log's
    end, those of other consumers counted too, and how many parked messages come by the log again.
    """

    first_position: int
    entries: int
    parked_removed: int


def _optional_fields() -> dict[str, Any]:
    """Return the fields of a definition but its name, none of which has to be given."""
    return {
        name: Annotated[field.annotation, *field.metadata, Field(default_factory=_nothing)]
        for name, field in ConsumerDefinition.model_fields.items()
        if name != "name"
    }


class _Edit(Given):
    """Fields of a definition: what is given is set, the others stay. A change that would lose
    something needs `may_lose`."""

    may_lose: bool = False


if TYPE_CHECKING:
    EditConsumer = _Edit
else:
    EditConsumer = create_model(
        "EditConsumer", __base__=_Edit, __doc__=_Edit.__doc__, **_optional_fields()
    )


async def list_consumers(call: Call) -> Page[ConsumerHealth]:
    """Return all consumers, by name, with their state and how far behind they are."""
    async with call.state() as state, Together(state) as reads:
        return Page(data=await _healths(call, reads))


async def create_consumer(call: Call, body: NewConsumer) -> ChangedConsumer:
    """Make a consumer, and the publication and the slot if they are missing. Tables and columns are
    looked up in the source database: what is not there is a 422."""
    values = body.model_dump(mode="json", exclude={"name"}, exclude_unset=True)
    async with call.source() as source, call.state() as state:
        warnings = await editor_of(call, source, state).create(body.name, values)
        return await _changed(state, body.name, warnings)


async def show_consumer(call: Call, name: str) -> ConsumerInfo:
    """Return one consumer: its definition, and its place in each partition of the log."""
    async with call.state() as state:
        return ConsumerInfo(**await _shown(state, name))


async def show_health(call: Call, name: str) -> ConsumerHealth:
    """Return the health of one consumer: how far behind it is, and what is wrong with it."""
    async with call.state() as state, Together(state) as reads:
        found = {health.name: health for health in await _healths(call, reads)}
    if name not in found:
        raise UnknownConsumer(name, list(found))
    return found[name]


async def edit_consumer(call: Call, name: str, body: EditConsumer) -> ChangedConsumer:
    """Set the given fields of a consumer's definition; the others stay. What would lose something
    is a 409, unless `may_lose` is true. One that is declared in code or in triggerkit.toml is
    changed there."""
    values = body.model_dump(mode="json", exclude={"may_lose"}, exclude_unset=True)
    async with call.source() as source, call.state() as state:
        editor = editor_of(call, source, state)
        warnings = await editor.edit(name, values, may_lose=body.may_lose)
        return await _changed(state, name, warnings)


async def delete_consumer(call: Call, name: str) -> None:
    """Forget a consumer: its place in the log, its parked messages, its deliveries. One that is
    declared is made anew by the next `triggerkit apply`."""
    async with call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.delete(await consumers.find(name))


async def pause_consumer(call: Call, name: str) -> ConsumerInfo:
    """Deliver nothing more; what happens meanwhile stays in the log."""
    async with call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.pause(await consumers.find(name))
        return ConsumerInfo(**await _shown(state, name))


async def resume_consumer(call: Call, name: str) -> ConsumerInfo:
    """Deliver again, from where it was paused or disabled."""
    async with call.state() as state:
        consumers = Consumers(state, ACTOR)
        await consumers.resume(await consumers.find(name))
        return ConsumerInfo(**await _shown(state, name))


async def replay_consumer(call: Call, name: str, body: ReplayFrom) -> Replay:
    """Deliver again what the log holds from a place on. Its tasks run again: a repeated message has
    another idempotency key than before."""
    async with call.state() as state:
        consumers = Consumers(state, ACTOR)
        rewound = await consumers.replay(await consumers.find(name), body.from_)
    return Replay(
        first_position=rewound.first_position,
        entries=rewound.entries,
        parked_removed=rewound.parked_removed,
    )


async def accept_gap(call: Call, name: str, body: AcceptGap) -> ConsumerInfo:
    """Close a consumer's gaps without reading its tables anew: what is missing stays missing."""
    async with call.state() as state:
        consumers = Consumers(state, ACTOR)
        table = None if body.table is None else str(TableName.parse(body.table))
        await consumers.accept_gap(await consumers.find(name), table)
        return ConsumerInfo(**await _shown(state, name))


async def _healths(call: Call, state: Reads) -> list[ConsumerHealth]:
    healths, outlooks = await asyncio.gather(consumer_health(state), _outlooks(call, state))
    return with_losses(healths, outlooks)


async def _outlooks(call: Call, state: Reads) -> list[Outlook]:
    databases = await rows_of(state, "SELECT id FROM triggerkit.databases ORDER BY id")
    return await asyncio.gather(*(outlook(state, row[0], call.policy) for row in databases))


def editor_of(
    call: Call,
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    actor: str = ACTOR,
) -> Editor:
    """Return what makes and edits consumers, on behalf of `actor`."""
    settings = call.settings
    names = CaptureNames.of(settings)
    tasks = {task.name: task for task in call.tasks}
    return Editor(
        source,
        state,
        call.keyring,
        settings.public_url,
        actor,
        names,
        lambda declared: check_direct([declared], tasks),
    )


async def _shown(state: psycopg.AsyncConnection, name: str) -> dict[str, Any]:
    stored = await Consumers(state, ACTOR).find(name)
    return {
        "name": stored.name,
        "state": stored.state,
        "managed_by": stored.managed_by,
        "endpoint": stored.endpoint,
        "definition": stored.definition,
        "cursors": await cursors_of(state, stored.id),
        "gaps": (await open_gaps(state, stored.id)).get(stored.id, []),
    }


async def _changed(
    state: psycopg.AsyncConnection, name: str, warnings: list[str]
) -> ChangedConsumer:
    return ChangedConsumer(**await _shown(state, name), warnings=warnings)
