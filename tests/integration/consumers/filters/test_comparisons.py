"""Filters compare as Postgres does, or are refused: Postgres itself is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from triggerkit.consumers.declare.resolve import resolve
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.filters.filter import all_of
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.values import decoder_for

MOMENTS = [
    "2026-01-02 03:04:05.6", "2026-01-02 03:04:05", "2026-01-02", "9999-12-31 23:59:59.999999",
    "10000-01-01", "12345-06-07", "0044-03-15 BC", "0043-03-15 BC", "0001-01-01", "infinity",
    "-infinity",
]  # fmt: skip
NUMBERS = ["0", "-0", "1", "-1", "10", "9", "2147483647", "7.5", "1e3", "NaN", "0.1", "Infinity"]
TEXTS = ["", "a", "A", "b", "ab", "a ", " a", "abc", "abcd", "ABCDEF", "é", "z", "Z", "\U0001f600"]
NETWORKS = [
    "10.0.0.1",
    "10.0.0.1/32",
    "10.0.0.0/8",
    "9.0.0.0/8",
    "::1",
    "2001:db8::/32",
    "10.0.0.2",
]
SPANS = ["1 mon", "30 days", "1 day", "24:00:00", "-1 day", "00:00:00"]
BITS = ["1", "0", "10", "101", "111", "1010"]

#: The types of columns and texts of values, of which Postgres takes those that are of the type.
TYPES: dict[str, list[str]] = {
    **dict.fromkeys(["int2", "int4", "int8", "oid", "xid8", "xid"], NUMBERS),
    **dict.fromkeys(["float4", "float8", "numeric", "numeric(5,2)", "money"], NUMBERS),
    **dict.fromkeys(["text", "varchar", "varchar(3)", "char(3)", "name", '"char"'], TEXTS),
    **dict.fromkeys(['text COLLATE "C"', 'varchar(3) COLLATE "C"', 'char(3) COLLATE "C"'], TEXTS),
    **dict.fromkeys(
        ["text COLLATE public.german", "text COLLATE public.fuzzy", "public.word"], TEXTS
    ),
    **dict.fromkeys(["date", "timestamp", "timestamptz", "timestamp(0)"], MOMENTS),
    **{key: ["00:00", "23:59:59.9", "24:00", "10:00:00.5", "10:00"] for key in ["time", "time(0)"]},
    "timetz": ["10:00+02", "08:00+00", "10:00+01", "09:00-05:30", "24:00+00"],
    "bool": ["true", "false"],
    "uuid": [f"{n:032x}" for n in (0, 1, 10, 255, 2**127)],
    **dict.fromkeys(["inet", "cidr"], NETWORKS),
    "macaddr": ["00:00:00:00:00:01", "0a:00:00:00:00:01", "ff:00:00:00:00:00"],
    "macaddr8": ["00:00:00:00:00:00:00:01", "0a:00:00:00:00:01:00:00", "ff:ff:ff:00:00:00:00:00"],
    "pg_lsn": ["0/1", "16/B374D848", "0/FFFFFFFF", "2/0", "10/0"],
    **dict.fromkeys(["bit(3)", "varbit"], BITS),
    "interval": SPANS,
    "public.mood": ["ok", "sad", "a"],
    "public.positive": NUMBERS,
    "public.short": TEXTS,
    "bytea": [r"\x00", r"\x01ff"],
    "jsonb": ["1", "1.0", '{"a": 1}'],
    "int4[]": ["{1,2}", "{1}"],
    "int4range": ["[1,2)", "[1,1]"],
    "point": ["(1,2)"],
    "tsvector": ["a b", "b a"],
    "regclass": ["pg_class", "pg_type"],
}

#: Those that filters do not compare at all.
REFUSED = {
    "money", "xid", "interval", "bytea", "jsonb", "int4[]", "int4range", "point", "tsvector",
    "regclass", "text COLLATE public.fuzzy",
}  # fmt: skip

MADE = (
    "CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'a')",
    "CREATE DOMAIN public.positive AS int8 CHECK (value > 0)",
    'CREATE DOMAIN public.word AS text COLLATE "C"',
    "CREATE DOMAIN public.short AS varchar(3)",
    # As Postgres has them where it is built with more than one order of text.
    "CREATE COLLATION public.fuzzy (provider = libc, locale = 'C')",
    "CREATE COLLATION public.german (provider = libc, locale = 'C')",
    "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'fuzzy'",
    "UPDATE pg_collation SET collcollate = 'de_DE.utf8' WHERE collname = 'german'",
)

OPERATORS = {"==": "=", "!=": "<>", "<": "<", ">": ">", "<=": "<=", ">=": ">="}

COLUMNS = {type_: f"c{number}" for number, type_ in enumerate(TYPES)}


@st.composite
def _comparisons(draw: st.DrawFn) -> tuple[str, str, str, str]:
    type_ = draw(st.sampled_from(list(TYPES)))
    values = st.sampled_from(TYPES[type_])
    return type_, draw(values), draw(st.sampled_from(list(OPERATORS))), draw(values)


@pytest.fixture
def table(settings: Settings) -> Settings:
    """A table with a column of each type."""
    columns = ", ".join(f"{COLUMNS[type_]} {type_}" for type_ in TYPES)
    with psycopg.connect(settings.source_dsn, autocommit=True) as source:
        for statement in (*MADE, f"CREATE TABLE public.items (id int PRIMARY KEY, {columns})"):
            source.execute(statement.encode())
    return settings


@given(st.lists(_comparisons(), min_size=100, max_size=200))
@limits(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filter_passes_what_postgres_lets_pass(
    table: Settings, comparisons: list[tuple[str, str, str, str]]
) -> None:
    async def scenario() -> None:
        async with await connect(table.source_dsn, "test") as source:
            for comparison in comparisons:
                await _compare(source, *comparison)

    asyncio.run(scenario())


@pytest.mark.parametrize("type_", sorted(REFUSED))
def test_what_is_not_compared_as_postgres_does_is_refused(table: Settings, type_: str) -> None:
    async def scenario() -> None:
        async with await connect(table.source_dsn, "test") as source:
            with pytest.raises(
                ConfigurationError, match="cannot be compared here as Postgres does"
            ):
                await _resolved(source, type_, "==", TYPES[type_][0])

    asyncio.run(scenario())


def test_text_is_ordered_only_where_its_collation_is_by_code_point(table: Settings) -> None:
    async def scenario() -> None:
        async with await connect(table.source_dsn, "test") as source:
            await _resolved(source, 'text COLLATE "C"', "<", "a")
            await _resolved(source, "public.word", "<", "a")
            for type_ in ("text COLLATE public.german", "public.mood", "inet", "timetz", "pg_lsn"):
                with pytest.raises(ConfigurationError, match="does not order values of type"):
                    await _resolved(source, type_, "<", TYPES[type_][0])

    asyncio.run(scenario())


async def _compare(
    source: psycopg.AsyncConnection, type_: str, stored: str, operator: str, literal: str
) -> None:
    column = COLUMNS[type_]
    try:
        definition = await _resolved(source, type_, operator, literal)
    except ConfigurationError:
        return
    plain = type_.partition(" COLLATE ")
    value = f"CAST('{stored}' AS {plain[0]}) {''.join(plain[1:])}"
    compared = f"{column} {OPERATORS[operator]} '{literal}'"
    query = f"SELECT {column}, {compared} FROM (SELECT {value} AS {column}) v"
    try:
        cursor = await source.execute(query.encode())
        await cursor.fetchall()
    except psycopg.Error:
        # Not a value of this type.
        return
    result: Any = cursor.pgresult
    raw = result.get_value(0, 0)
    record = {column: decoder_for(result.ftype(0))(raw)}
    test = all_of(definition.filters)
    assert test is not None
    assert test(record) is (result.get_value(0, 1) == b"t"), (type_, stored, operator, literal)


async def _resolved(
    source: psycopg.AsyncConnection, type_: str, operator: str, literal: str
) -> ConsumerDefinition:
    definition = changes("items", filters=[(COLUMNS[type_], operator, literal)])
    return (await resolve(source, definition, "test")).definition
