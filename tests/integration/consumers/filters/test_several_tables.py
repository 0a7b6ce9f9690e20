"""Options that name a column of several tables: one value, compared and grouped as each table's."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.pipeline import execute
from triggerkit.consumers.declare.resolve import Resolved, resolve
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


def resolved(settings: Settings, definition: ConsumerDefinition, one: str, other: str) -> Resolved:
    """`definition`, held against two tables whose columns `v` have these types."""

    async def run() -> Resolved:
        await execute(
            settings,
            "CREATE TYPE mood AS ENUM ('a', 'b')",
            "CREATE DOMAIN amount AS int",
            f"CREATE TABLE one (id int PRIMARY KEY, v {one})",
            f"CREATE TABLE other (id int PRIMARY KEY, v {other})",
        )
        async with await connect(settings.source_dsn, "test") as source:
            return await resolve(source, definition, "consumer c")

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ("int", "text", 5),
        ("int", "jsonb", 5),
        ("bigint", "smallint", 100_000),
        ("text", "uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        ("text", "int", "five"),
        ("timestamptz", "date", "2026-01-01T10:00:00Z"),
        ("char(5)", "text", "a"),
        ("mood", "int", "a"),
        ("bool", "text", True),
    ],
)
def test_a_filter_that_one_of_the_tables_compares_otherwise_is_refused(
    settings: Settings, one: str, other: str, value: object
) -> None:
    filtered = changes("one", "other", filters=[("v", "==", value)])
    with pytest.raises(ConfigurationError, match=r"consumer c filters\.0\.(column|value).*other"):
        resolved(settings, filtered, one, other)


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ("int", "bigint", 5),
        ("int", "numeric(10, 2)", 5),
        ("amount", "int", 5),
        ("text", "varchar(3)", "long"),
        ("mood", "text", "a"),
        ("timestamptz", "timestamp", "2026-01-01T10:00:00Z"),
        ('text COLLATE "C"', "text", "a"),
    ],
)
def test_a_filter_that_all_tables_compare_alike_is_taken(
    settings: Settings, one: str, other: str, value: object
) -> None:
    found = resolved(settings, changes("one", "other", filters=[("v", "==", value)]), one, other)
    assert found.definition.filters[0].test()({"v": found.definition.filters[0].value})


def test_an_order_that_one_of_the_tables_lacks_is_refused(settings: Settings) -> None:
    filtered = changes("one", "other", filters=[("v", ">", "a")])
    with pytest.raises(ConfigurationError, match=r"does not order .* of public\.other"):
        resolved(settings, filtered, 'text COLLATE "C"', "mood")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int", "text"),
        ("int", "numeric"),
        ("numeric(10, 2)", "numeric(10, 3)"),
        ("uuid", "text"),
        ("char(5)", "text"),
        ("timestamptz", "timestamp"),
        ("float4", "float8"),
        ("int", "bool"),
    ],
)
def test_groups_whose_values_read_otherwise_in_each_table_are_refused(
    settings: Settings, one: str, other: str
) -> None:
    grouped = changes("one", "other", group_by=["v"])
    with pytest.raises(ConfigurationError, match=r"group_by: .*public\.one .*public\.other"):
        resolved(settings, grouped, one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int", "bigint"),
        ("amount", "smallint"),
        ("text", "varchar(9)"),
        ("uuid", "uuid"),
        ("mood", "text"),
        ("numeric(10, 2)", "numeric(12, 2)"),
    ],
)
def test_groups_whose_values_read_alike_are_taken(settings: Settings, one: str, other: str) -> None:
    grouped = changes("one", "other", group_by=["v"])
    assert resolved(settings, grouped, one, other).definition == grouped
