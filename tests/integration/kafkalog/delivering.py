"""A log on Kafka in the test's own event loop: one stream that captures, and who delivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.integration.pipeline import run_until_canceled
from tests.kafka import KafkaServer
from tests.receiver import Receiver
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.supervisor.deliver import run_deliver


def with_log_on_kafka(settings: Settings, server: KafkaServer) -> Settings:
    """The settings of a project whose log is on Kafka."""
    on_kafka = Settings.parse({**settings.environment(), **server.settings()})
    return on_kafka.model_copy(update={"triggerkit_log": "kafka"})


@asynccontextmanager
async def delivering(settings: Settings, project: Project | None = None) -> AsyncIterator[None]:
    """A process of the group that delivers, from its beginning to its end in order."""
    ready = asyncio.Event()
    running = asyncio.create_task(run_deliver(settings, ready.set, project))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        await running
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled() or running.result() is None


@asynccontextmanager
async def streaming_over_kafka(
    settings: Settings, receiver: Receiver, deliverers: int = 1
) -> AsyncIterator[None]:
    """A stream, and so many processes that deliver."""
    pushed_to = settings.model_copy(update={"triggerkit_public_url": receiver.url})
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(run_until_canceled(pushed_to))
        for _ in range(deliverers):
            await stack.enter_async_context(delivering(pushed_to))
        yield
