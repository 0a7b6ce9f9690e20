"""Whole transactions in one turn with the server: BEGIN to COMMIT are sent before any answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

#: A query and its parameters.
Statement = tuple[str, Any]

Rows = list[tuple[Any, ...]]


class Around(NamedTuple):
    """Statements that become part of a transaction of others: before its own, and after them."""

    before: Sequence[Statement]
    after: Sequence[Statement]


NOTHING = Around((), ())


def in_one_turn(connection: psycopg.Connection, statements: Sequence[Statement]) -> list[Rows]:
    """Run `statements` as one transaction and return the rows of each.

    `connection` is in autocommit mode and idle, before and after. Each statement sees what those
    before it did, but its text and parameters cannot depend on their rows.

    Raises:
        psycopg.Error: one failed; none of them was done.
    """
    try:
        with connection.pipeline():
            connection.execute("BEGIN")
            cursors = [connection.execute(query, given) for query, given in statements]
            connection.execute("COMMIT")
            return [cursor.fetchall() for cursor in cursors]
    except psycopg.Error:
        if not connection.broken:
            connection.rollback()
        raise


async def in_one_turn_async(
    connection: psycopg.AsyncConnection, statements: Sequence[Statement]
) -> list[Rows]:
    """`in_one_turn` for an asynchronous connection."""
    try:
        async with connection.pipeline():
            await connection.execute("BEGIN")
            cursors = [await connection.execute(query, given) for query, given in statements]
            await connection.execute("COMMIT")
            return [await cursor.fetchall() for cursor in cursors]
    except psycopg.Error:
        if not connection.broken:
            await connection.rollback()
        raise
