"""The two ways in which a stream's messages become runs: by our webhook routes, and directly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from starlette.applications import Starlette

from tests.conformance import taking
from tests.integration.kafkalog.delivering import delivering
from tests.integration.parked import fetch
from tests.integration.pipeline import run_until_canceled
from tests.integration.serving import serving
from triggerkit import webhook
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.application import Application

PROJECT = Project(Path(__file__).parents[2], tasks=("tests.conformance.taking",))

Via = Literal["webhook", "direct"]

_RUNS = """
SELECT id, task, queue, max_attempts, payload, idempotency_key, concurrency_key, source,
    expires_at IS NOT NULL AS expires, priority, traceparent
FROM triggerkit.runs ORDER BY seq
"""


@dataclass(frozen=True)
class Made:
    """A run as a delivery made it."""

    id: str
    task: str
    queue: str
    max_attempts: int
    payload: str
    idempotency_key: str
    concurrency_key: str | None
    source: dict[str, Any]
    expires: bool
    priority: int
    traceparent: str | None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Its messages."""
        parsed = orjson.loads(self.payload)
        data = parsed.get("data")
        # An event has data of its own.
        return data if isinstance(data, list) else [parsed]


async def made(settings: Settings) -> list[Made]:
    """All runs there are, in order."""
    return [Made(*row) for row in await fetch(settings, _RUNS)]


async def names(settings: Settings) -> list[str | None]:
    """The names in all messages of all runs, in order."""
    return [m["record"]["name"] for run in await made(settings) for m in run.messages]


@contextmanager
def site(settings: Settings) -> Iterator[Settings]:
    """Serve the tasks' routes meanwhile; the settings lead to them."""
    routes = Starlette(routes=[webhook(task.path, task=task) for task in taking.TASKS])
    with serving(Application(settings, [], routes)) as running:
        url = f"http://127.0.0.1:{running.port}"
        yield settings.model_copy(update={"triggerkit_public_url": url})


@asynccontextmanager
async def streaming(settings: Settings, via: Via) -> AsyncIterator[Settings]:
    """Stream, with routes only where they are needed."""
    if via == "direct":
        async with _running(settings):
            yield settings
        return
    with site(settings) as pushed_to:
        await declare_routes(pushed_to)
        async with _running(pushed_to):
            yield pushed_to


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[None]:
    """The stream, and where the log is on Kafka who delivers from it."""
    async with run_until_canceled(settings, PROJECT):
        if settings.triggerkit_log == "postgres":
            yield
            return
        async with delivering(settings, PROJECT):
            yield


async def declare(
    settings: Settings, via: Via, definition: ConsumerDefinition, task: Any = taking.take_batch
) -> None:
    """Make the consumer `test` of a task as if the task declared it."""
    is_direct = via == "direct"
    given = definition.model_copy(update={"via": via, "task": task.name if is_direct else None})
    declared = Declared("test", given, None if is_direct else task.path)
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        on_kafka = settings.triggerkit_log == "kafka"
        if on_kafka:
            # That log keeps no previous versions.
            await source.execute("ALTER TABLE public.items REPLICA IDENTITY FULL")
        declarations = Declarations([declared], is_log_on_kafka=on_kafka)
        await apply(source, state, declarations, settings.public_url)


async def declare_routes(settings: Settings) -> None:
    """Have the endpoints lead to where the routes are now."""
    async with await connect(settings.state_dsn, "test") as state:
        await state.execute(
            "UPDATE triggerkit.endpoints SET url = %s || regexp_replace(url, 'http://[^/]+', '')",
            [settings.public_url],
        )
