"""A stream from a test's database to a test's receiver, in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.receiver import Answer, Receiver, accept
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.stream import run_stream


async def declare(
    settings: Settings, receiver: Receiver, definition: ConsumerDefinition, name: str = "test"
) -> list[str]:
    """Make a consumer that pushes to the receiver."""
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        on_kafka = settings.triggerkit_log == "kafka"
        declared = Declarations([Declared(name, definition, "/push")], is_log_on_kafka=on_kafka)
        return await apply(source, state, declared, receiver.url)


@asynccontextmanager
async def streaming(settings: Settings, receiver: Receiver) -> AsyncIterator[None]:
    """The stream process's work, from its readiness to its cancellation."""
    pushed_to = settings.model_copy(update={"triggerkit_public_url": receiver.url})
    async with run_until_canceled(pushed_to):
        yield


@asynccontextmanager
async def run_until_canceled(
    settings: Settings, project: Project | None = None
) -> AsyncIterator[None]:
    """`streaming` to wherever the settings lead; directly, to the tasks of `project`."""
    ready = asyncio.Event()
    stream = asyncio.create_task(run_stream(settings, ready.set, project))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({stream, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stream.done():
        waiting.cancel()
        await stream
    try:
        yield
    finally:
        stream.cancel()
        await asyncio.wait({stream})
    # An error at its end is one.
    assert stream.cancelled() or stream.result() is None


@asynccontextmanager
async def pipeline(
    settings: Settings, definition: ConsumerDefinition, *setup: str, answer: Answer = accept
) -> AsyncIterator[Receiver]:
    """A receiver that a stream pushes to, after the statements of `setup` on the source."""
    async with Receiver.start(answer) as receiver:
        await execute(settings, *setup)
        await declare(settings, receiver, definition)
        async with streaming(settings, receiver):
            yield receiver


async def execute(settings: Settings, *statements: str) -> None:
    """Run statements on the source, each its own transaction."""
    async with await connect(settings.source_dsn, "test") as source:
        await source.execute("SET search_path = public, pg_catalog")
        for statement in statements:
            await source.execute(statement)
