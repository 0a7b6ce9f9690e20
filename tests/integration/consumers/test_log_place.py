"""A database's log stays where it was begun: nobody goes on at another place."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.integration.pipeline import execute
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.definition import changes
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.deliver import run_deliver
from triggerkit.supervisor.stream import run_stream

TABLE = (
    "CREATE TABLE items (id bigint PRIMARY KEY)",
    "ALTER TABLE items REPLICA IDENTITY FULL",
)


async def applied(settings: Settings, *, on_kafka: bool) -> None:
    declared = [Declared("items", changes("items"), "/push")]
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        declarations = Declarations(declared, is_log_on_kafka=on_kafka)
        await apply(source, state, declarations, "http://127.0.0.1:9")


def place(settings: Settings) -> str:
    with psycopg.connect(settings.state_dsn) as connection:
        row = connection.execute("SELECT log FROM triggerkit.databases").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("begun", ["postgres", "kafka"])
def test_a_log_that_has_something_is_not_begun_elsewhere(settings: Settings, begun: str) -> None:
    other = "kafka" if begun == "postgres" else "postgres"

    async def scenario() -> None:
        await execute(settings, *TABLE)
        await applied(settings, on_kafka=begun != "kafka")
        # As long as nothing is in it, it may be anywhere.
        await applied(settings, on_kafka=begun == "kafka")
        assert place(settings) == begun
        with psycopg.connect(settings.state_dsn) as connection:
            connection.execute("UPDATE triggerkit.databases SET next_position = 7")
        told = f"TRIGGERKIT_LOG is {other}, .* was begun in {begun}.* set TRIGGERKIT_LOG to {begun}"
        with pytest.raises(ConfigurationError, match=told):
            await applied(settings, on_kafka=other == "kafka")
        moved = settings.model_copy(update={"triggerkit_log": other})
        for run in (run_stream, run_deliver):
            async with asyncio.timeout(30):
                with pytest.raises(ConfigurationError, match=told):
                    await run(moved, lambda: None, Project.load())

    asyncio.run(scenario())
    assert place(settings) == begun
