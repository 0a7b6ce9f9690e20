"""A transaction in one turn is done as a whole or not at all, and leaves its connection free."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from triggerkit.state.turn import Statement, in_one_turn, in_one_turn_async

MADE: Statement = ("CREATE TABLE made (n int)", None)
FILLED: Statement = ("INSERT INTO made SELECT unnest(%s::int[]) RETURNING n", [[1, 2]])
COUNTED: Statement = ("SELECT count(*) FROM made", None)
REFUSED: Statement = ("SELECT %s::text::jsonb", ["no JSON"])


def test_each_statement_sees_those_before_it(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MADE[0])
        filled, counted = in_one_turn(connection, [FILLED, COUNTED])
        assert (filled, counted) == ([(1,), (2,)], [(2,)])
        assert connection.info.transaction_status == TransactionStatus.IDLE
    with psycopg.connect(database_url) as other:
        assert other.execute(COUNTED[0]).fetchall() == [(2,)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_fails_undoes_all(database_url: str, place: int) -> None:
    statements = [FILLED, FILLED]
    statements.insert(place, REFUSED)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MADE[0])
        with pytest.raises(psycopg.DataError):
            in_one_turn(connection, statements)
        assert connection.info.transaction_status == TransactionStatus.IDLE
        assert in_one_turn(connection, [COUNTED]) == [[(0,)]]


def test_it_is_the_same_for_an_asynchronous_connection(database_url: str) -> None:
    async def scenario() -> None:
        connect = psycopg.AsyncConnection.connect(database_url, autocommit=True)
        async with await connect as connection:
            await connection.execute(MADE[0])
            with pytest.raises(psycopg.DataError):
                await in_one_turn_async(connection, [FILLED, REFUSED])
            assert connection.info.transaction_status == TransactionStatus.IDLE
            answers = await in_one_turn_async(connection, [FILLED, COUNTED])
            assert answers == [[(1,), (2,)], [(2,)]]

    asyncio.run(scenario())
