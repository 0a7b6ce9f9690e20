"""Rows are found by whatever their key is written as, and what is no key is said to be none."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.pipeline import declare, execute, streaming
from tests.integration.why.test_changes import why
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.errors import ConfigurationError, TriggerkitError, UnknownRun
from triggerkit.settings import Settings

#: Tables by what their key is, a row, and other ways to write its key.
KEYS = [
    ("amounts", "a numeric PRIMARY KEY", "(1.10)", ["1.1", "1.100"]),
    ("waits", "a interval PRIMARY KEY", "('1 day')", ["24:00:00", "P1D"]),
    ("floats", "a float8 PRIMARY KEY", "('-0')", ["0", "-0.0"]),
    ('"a[b:[c"', "a int PRIMARY KEY", "(7)", ["07"]),
]
TYPES = (
    "CREATE DOMAIN positive AS int CHECK (value > 0)",
    "CREATE TABLE counts (a positive PRIMARY KEY)",
    "CREATE TABLE relations (a regclass PRIMARY KEY)",
)


def test_a_row_is_found_by_any_value_that_equals_its_key(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TYPES)
            for table, columns, *_ in KEYS:
                await execute(settings, f"CREATE TABLE {table} ({columns})")
                name = table.strip('"').translate({ord(c): "_" for c in "[:"})
                await declare(settings, receiver, changes(f"public.{table}"), name)
            async with streaming(settings, receiver):
                for table, _, row, _ in KEYS:
                    await execute(settings, f"INSERT INTO {table} VALUES {row}")
                await receiver.until(lambda: len(receiver.messages) == len(KEYS))
                for table, _, row, written in KEYS:
                    for value in written:
                        found = await why(settings, f"public.{table}", value)
                        assert found.steps, (table, value, found.conclusion)
                        assert found.subject.key == [row.strip("()'")]

    asyncio.run(scenario())


@pytest.mark.parametrize("words", [("counts", "-1"), ("relations", "nowhere")])
def test_what_is_no_value_of_the_key_is_said_to_be_none(
    settings: Settings, words: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TYPES)
            await declare(settings, receiver, changes("counts"), "counted")
            with pytest.raises(ConfigurationError, match="is no such value"):
                await why(settings, *words)

    asyncio.run(scenario())


def test_an_idempotency_key_that_only_looks_like_a_rows_is_unknown(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TYPES)
            await declare(settings, receiver, changes("counts"), "counted")
            for key in ("1.0.b1.public.counts:[abc]", "1.0.b1.public.counts:[1]]", "1.0.b1.x:[{}"):
                with pytest.raises(UnknownRun):
                    await why(settings, key)
            with pytest.raises(TriggerkitError, match=r"triggerkit why public\.counts2 KEY"):
                await why(settings, "public.counts2")

    asyncio.run(scenario())
