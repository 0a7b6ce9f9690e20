"""Whoever looks for changes of a log on Kafka is told that nobody does, and not that none are
there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import psycopg
import pytest

from tests.integration.consumers.test_log_place import TABLE, applied
from tests.integration.pipeline import execute
from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.trace.changes import trace
from triggerkit.consumers.trace.latest import Wanted, latest_changes
from triggerkit.errors import TriggerkitError
from triggerkit.log.search import bounds_of, position_of_commit
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool
from triggerkit.state.reading import Together
from triggerkit.supervisor.verify.in_flight import Pipeline


def test_it_is_said_that_a_log_on_kafka_is_not_searched(settings: Settings) -> None:
    async def refused(asked: Awaitable[object]) -> None:
        with pytest.raises(TriggerkitError, match="the log is on Kafka, where changes are not loo"):
            await asked

    async def scenario() -> None:
        await execute(settings, *TABLE)
        await applied(settings, on_kafka=True)
        with psycopg.connect(settings.state_dsn) as connection:
            connection.execute("UPDATE triggerkit.databases SET next_position = 7")
        async with (
            await connect(settings.state_dsn, "test") as state,
            pool(settings.state_dsn, "test", size=2) as states,
        ):
            await refused(trace(states, 1, 3))
            async with Together(state) as reads:
                await refused(bounds_of(reads, 1))
            await refused(position_of_commit(state, 1, 1, 100, 0))
            await refused(latest_changes(state, 1, 7, Wanted()))
            pipeline = Pipeline(states, "note", TableName("public", "items"))
            await refused(pipeline.open("items", "anything"))

    asyncio.run(scenario())
