"""By either way, the run of a truncate is made between those of what was written before it and of
what was written after it."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from tests.conformance import taking
from tests.conformance.ways import Via, declare, made, streaming
from tests.integration.parked import fetch, until
from tests.integration.pipeline import execute
from tests.integration.truncated import Copy, rows, until_all_is_delivered, write
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.settings import Settings

WAYS = pytest.mark.parametrize("via", get_args(Via))

ITEMS = "CREATE TABLE items (id bigint PRIMARY KEY, v text, name text DEFAULT 'good')"


@WAYS
@pytest.mark.parametrize(
    "definition",
    [
        pytest.param(changes("items", batch_size=20), id="batches"),
        pytest.param(changes("items", concurrency=2), id="one by one"),
        pytest.param(changes("items", group_by=["v"], batch_size=20), id="grouped"),
        pytest.param(changes("items", when_changed=["v"], batch_size=5), id="when changed"),
        pytest.param(changes("items", filters=[("v", "!=", "")], batch_size=5), id="filtered"),
    ],
)
def test_a_copy_applied_in_the_order_of_the_runs_is_the_table(
    settings: Settings, via: Via, definition: ConsumerDefinition
) -> None:
    async def scenario() -> None:
        # Whole old rows: a group's values are those of a delete, too.
        await execute(settings, ITEMS, "ALTER TABLE items REPLICA IDENTITY FULL")
        await declare(settings, via, definition)
        async with streaming(settings, via):
            async with asyncio.TaskGroup() as group:
                for seed in range(3):
                    group.create_task(write(settings, ["items"], seed, 30))
            await execute(settings, "TRUNCATE items", "INSERT INTO items VALUES (1, 'after')")
            await until_all_is_delivered(settings)
        copy = Copy()
        for run in await made(settings):
            copy.apply(run.messages)
        assert await fetch(settings, "SELECT reason FROM triggerkit.parked") == []
        assert copy.truncates > 1
        assert copy.tables == await rows(settings, copy.tables)

    asyncio.run(scenario())


@WAYS
def test_what_is_parked_of_the_table_is_superseded(settings: Settings, via: Via) -> None:
    """Among it one whose key has a message behind it."""

    async def scenario() -> None:
        await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, name text)")
        await declare(settings, via, changes("items", batch_size=10))
        async with streaming(settings, via):
            names = "CASE WHEN n % 5 = 0 THEN 'raises' ELSE 'good' END"
            await execute(
                settings, f"INSERT INTO items SELECT n, {names} FROM generate_series(1, 20) n"
            )
            parked = "SELECT count(*) FROM triggerkit.parked"
            await until(settings, parked, lambda found: found == [(4,)])
            await execute(
                settings,
                "UPDATE items SET name = 'behind' WHERE id = 5",
                "TRUNCATE items",
                "INSERT INTO items VALUES (5, 'after')",
            )
            states = "SELECT DISTINCT state, count(*) OVER () FROM triggerkit.parked"
            await until(settings, states, lambda found: found == [("superseded", 5)])
            after = "SELECT count(*) FROM triggerkit.runs WHERE payload LIKE '%after%'"
            await until(settings, after, lambda found: found == [(1,)])
        messages = [message for run in await made(settings) for message in run.messages]
        assert [m["action"] for m in messages] == ["insert"] * 16 + ["truncate", "insert"]

    asyncio.run(scenario())


@WAYS
def test_one_that_a_transform_raises_at_is_dead_and_holds_nothing(
    settings: Settings, via: Via
) -> None:
    async def scenario() -> None:
        await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, name text)")
        definition = changes("items", transform=taking.name_it)
        await declare(settings, via, definition, taking.take_named)
        async with streaming(settings, via):
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'before')",
                "TRUNCATE items",
                "INSERT INTO items VALUES (1, 'after')",
            )
            count = "SELECT count(*) FROM triggerkit.runs"
            await until(settings, count, lambda found: found == [(2,)])
        assert [run.messages for run in await made(settings)] == [
            [{"called": "before"}],
            [{"called": "after"}],
        ]
        parked = await fetch(settings, "SELECT state, reason FROM triggerkit.parked")
        assert parked == [("dead", "the transform raised TypeError")]

    asyncio.run(scenario())
