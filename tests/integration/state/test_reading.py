"""Readers that ask at the same moment are answered by one statement, as if each asked alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from triggerkit.state.connect import connect
from triggerkit.state.reading import Reads, Together, rows_of

#: A value of each type that the state and catalogs have, and none.
VALUES = """
SELECT 1::int2, 2::int4, 3::int8, 1.5::float8, 2.50::numeric, true, 'text'::text, 'name'::name,
    'c'::"char", 16385::oid, '{"a": [1, null]}'::jsonb, '[1]'::json, ARRAY['a', NULL],
    ARRAY[1, 2]::bigint[], '2026-01-31 12:00:00.5+00'::timestamptz, interval '90 s',
    '\\x00ff'::bytea, NULL::text, ARRAY[]::text[]
"""


@dataclass(frozen=True)
class Named:
    """A row by its columns' names."""

    second: str
    first: int


async def both(reads: Reads) -> tuple[list[tuple[Any, ...]], list[Named]]:
    """Two readers at one moment, one by place and one by name, with what looks like parameters."""
    return await asyncio.gather(
        rows_of(reads, "SELECT %s::int, %s::text, '%%s'", [7, "%s %(name)s"]),
        rows_of(
            reads,
            "SELECT n AS first, %(text)s::text AS second FROM generate_series(1, %(most)s) n "
            "ORDER BY n DESC",
            {"text": "same", "most": 3},
            into=Named,
        ),
    )


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are sent."""
    found: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, query: Any, *given: Any, **options: Any) -> Any:
        found.append(query)
        return await execute(self, query, *given, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)
    return found


def together(url: str, sent: list[str], read: Callable[[Together], Awaitable[Any]]) -> Any:
    """What a reader of a `Together` finds."""

    async def found() -> Any:
        async with await connect(url, "test") as connection:
            sent.clear()
            async with Together(connection) as reads:
                return await read(reads)

    return asyncio.run(found())


def alone(url: str, read: Callable[[psycopg.AsyncConnection], Awaitable[Any]]) -> Any:
    """What it finds of a connection."""

    async def found() -> Any:
        async with await connect(url, "test") as connection:
            return await read(connection)

    return asyncio.run(found())


def test_what_is_asked_at_one_moment_is_one_statement(database_url: str, sent: list[str]) -> None:
    found = together(database_url, sent, both)
    assert list(found) == [
        [(7, "%s %(name)s", "%s")],
        [Named("same", 3), Named("same", 2), Named("same", 1)],
    ]
    assert len(sent) == 1
    assert alone(database_url, both) == found


def test_every_value_is_as_if_it_was_asked_for_alone(database_url: str, sent: list[str]) -> None:
    async def values(reads: Reads) -> Any:
        return await asyncio.gather(rows_of(reads, VALUES), rows_of(reads, "SELECT 1 WHERE false"))

    found = together(database_url, sent, values)
    assert len(sent) == 1
    assert found == alone(database_url, values)
    assert found[0][0][14] == datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC)


def test_a_chain_of_questions_costs_as_many_statements_as_it_has_links(
    database_url: str, sent: list[str]
) -> None:
    async def chain(reads: Reads, begin: int) -> list[int]:
        [(first,)] = await rows_of(reads, "SELECT %s::int + 1", [begin])

        async def deeper(by: int) -> int:
            [(second,)] = await rows_of(reads, "SELECT %s::int * %s::int", [first, by])
            return int(second)

        return await asyncio.gather(*(deeper(by) for by in range(3)))

    async def chains(reads: Reads) -> list[list[int]]:
        return await asyncio.gather(*(chain(reads, begin) for begin in range(4)))

    assert together(database_url, sent, chains) == [[0, n + 1, 2 * n + 2] for n in range(4)]
    assert len(sent) == 2


def test_a_failing_part_fails_those_of_its_moment_and_no_others(
    database_url: str, sent: list[str]
) -> None:
    async def failing(reads: Reads) -> Any:
        outcomes = await asyncio.gather(
            rows_of(reads, "SELECT 1 / %s::int", [0]),
            rows_of(reads, "SELECT 1"),
            return_exceptions=True,
        )
        return outcomes, await rows_of(reads, "SELECT 2")

    outcomes, after = together(database_url, sent, failing)
    assert [type(outcome) for outcome in outcomes] == [psycopg.errors.DivisionByZero] * 2
    assert after == [(2,)]


def test_a_reader_that_is_stopped_leaves_a_connection_that_works(database_url: str) -> None:
    async def stopped() -> list[Any]:
        async with await connect(database_url, "test") as connection:
            with pytest.raises(TimeoutError):
                async with Together(connection) as reads, asyncio.timeout(0.2):
                    await asyncio.gather(
                        rows_of(reads, "SELECT pg_sleep(60)"), rows_of(reads, "SELECT 1")
                    )
            with pytest.raises(RuntimeError, match="given back"):
                await rows_of(reads, "SELECT 1")
            return await rows_of(connection, "SELECT 3")

    assert asyncio.run(asyncio.wait_for(stopped(), 30)) == [(3,)]
