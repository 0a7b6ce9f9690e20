"""One stream per database works, the others stand by: the one that holds an advisory lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg

from triggerkit.settings import Settings
from triggerkit.state.connect import connect, cut_line

logger = logging.getLogger(__name__)

#: The advisory lock of a database's stream is this and the database's id.
STREAM_LOCK = 0x74726B_03

#: Seconds between two tries of a standby to take the lock. It does not wait in the server: a
#: statement that waits for days keeps vacuum from removing any row that died since it began.
STANDBY_S = 1.0

#: Seconds between two proofs that the lock is still held, and that each of them may take. Together
#: they are less than the server takes to give up on a line that is dead, and with it the lock.
BEAT_S = 2.0
BEAT_TIMEOUT_S = 4.0

#: After about 10 s without an answer from our machine the server gives the lock to a standby.
_NOTICE_SOON = """
SELECT set_config('tcp_keepalives_idle', '6', false),
    set_config('tcp_keepalives_interval', '2', false),
    set_config('tcp_keepalives_count', '2', false),
    set_config('tcp_user_timeout', '10000', false)
"""


@asynccontextmanager
async def leadership(
    settings: Settings, database_id: int, standing_by: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Wait until no other stream of this database is alive, and be the one until the end;
    `standing_by` is called where there is another.

    Guarantee: the body is canceled as soon as the lock may be somebody else's.

    Raises:
        CannotConnect: the state database does not answer.
        ExceptionGroup: of `psycopg.OperationalError`, when the lock was lost.
    """
    async with await connect(settings.state_dsn, "triggerkit leader") as connection:
        await connection.execute(_NOTICE_SOON)
        await _take(connection, database_id, standing_by)
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(_hold(connection), name="hold the lead")
            try:
                yield
            finally:
                holding.cancel()


async def _take(
    connection: psycopg.AsyncConnection, database_id: int, standing_by: Callable[[], None]
) -> None:
    is_told = False
    while True:
        cursor = await connection.execute(
            "SELECT pg_try_advisory_lock(%s, %s)", [STREAM_LOCK, database_id]
        )
        if await cursor.fetchone() == (True,):
            break
        if not is_told:
            logger.info("another stream is active; standing by")
            standing_by()
            is_told = True
        await asyncio.sleep(STANDBY_S)
    if is_told:
        logger.info("the other stream is gone; taking over")


async def _hold(connection: psycopg.AsyncConnection) -> None:
    """Look whether the connection lives, for the lock lives no longer than it.

    Raises:
        psycopg.OperationalError: it does not.
    """
    loop = asyncio.get_running_loop()
    while True:
        # Returns at once when the server ends the connection, which a sleep would not notice.
        async for _ in connection.notifies(timeout=BEAT_S):
            pass
        timer = loop.call_later(BEAT_TIMEOUT_S, _cut, connection)
        try:
            await connection.execute("SELECT 1")
        finally:
            timer.cancel()


def _cut(connection: psycopg.AsyncConnection) -> None:
    logger.warning("the state database does not answer; another stream may have taken over")
    cut_line(connection)
