"""Declare a task's effects, and compare them with the rows: all of them or one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple, TypeAlias, get_args

import psycopg
from psycopg import sql

#: A row without its effect, an effect of an older state of its row, an effect without a row; and a
#: row that is to have none, such as a post without text, which is no fault.
Problem = Literal["missing", "stale", "orphaned", "empty"]

_BEGIN = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    # A policy that hid rows would make effects look orphaned.
    "SET LOCAL row_security = off",
    # As a session that nothing was set for has it: ours name pg_catalog alone.
    'SET LOCAL search_path = "$user", public',
)

#: Milliseconds that the look at one row may take.
ONE_ROW_MS = 300


class Mismatch(NamedTuple):
    """A row that is out of step with its effect.

    `key` has the values of the primary key of the task's table, in order; of an orphaned effect
    those that its row had.
    """

    key: tuple[object, ...]
    problem: Problem


#: What finds the mismatches of a task, and only them. Either a query on the source database, which
#: answers the columns of the primary key, in order, and the problem. Or an async generator function
#: that yields each `Mismatch`; it gets a connection to the source database, in one read-only
#: transaction that sees the state of its start.
Verify: TypeAlias = str | Callable[[psycopg.AsyncConnection], AsyncIterator[Mismatch]]


@asynccontextmanager
async def one_snapshot(source: psycopg.AsyncConnection) -> AsyncIterator[None]:
    """Yield a read-only transaction that sees one state of the database."""
    try:
        for statement in _BEGIN:
            await source.execute(statement)
        yield
    finally:
        if not source.closed:
            await source.execute("ROLLBACK")


async def problem_of_row(
    source: psycopg.AsyncConnection, verify: Verify | None, key: Sequence[str]
) -> Problem | Literal["in step", "unknown"]:
    """Return how one row stands to its effect.

    It is unknown where a task does not say by a query how it is verified, or where the query does
    not answer for one row in `ONE_ROW_MS`.
    """
    if not isinstance(verify, str):
        return "unknown"
    names = [sql.Identifier(f"k{number}") for number in range(len(key))]
    conditions = [
        sql.SQL("v.{} = {}").format(name, sql.Literal(value))
        for name, value in zip(names, key, strict=True)
    ]
    columns = sql.SQL(", ").join([*names, sql.Identifier("problem")])
    tail = sql.SQL(") AS v ({}) WHERE {} LIMIT 1").format(
        columns, sql.SQL(" AND ").join(conditions)
    )
    query = b"SELECT v.problem FROM (%b\n%b" % (
        verify.strip().rstrip(";").encode(), tail.as_bytes(source)
    )  # fmt: skip
    try:
        async with one_snapshot(source):
            await source.execute(f"SET LOCAL statement_timeout = {ONE_ROW_MS}")
            row = await (await source.execute(query)).fetchone()
    except psycopg.Error:
        # `verify` says what is wrong with the query; here it is one source of several.
        return "unknown"
    if row is None:
        return "in step"
    return next((known for known in get_args(Problem) if known == row[0]), "unknown")
