"""Tell the processes that answer consumers apart, and whether one of them is gone.

Each holds a lock of the state database by its number for as long as it lives. Of an answer that a
process gave that is gone nobody knows whether it arrived: so it is given again.
"""

from __future__ import annotations

import asyncio
import secrets

import psycopg

from triggerkit.state.connect import connect

#: The first key of the locks; the second is a process's number.
_LOCKS = 0x6576656E

_HOLD = f"SELECT pg_advisory_lock({_LOCKS}, %s)"

#: Shared, so that several may look at once.
_IS_GONE = f"SELECT pg_try_advisory_xact_lock_shared({_LOCKS}, %s)"


class Server:
    """This process's number, and the connection that holds its lock."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection | None = None
        self._number = 0
        self._opening = asyncio.Lock()

    async def number(self) -> int:
        """Return the number, whose lock is held: another than before when that was lost."""
        async with self._opening:
            if self._connection is not None:
                try:
                    await self._connection.execute("SELECT")
                except psycopg.Error:
                    await self.close()
            if self._connection is None:
                connection = await connect(self._dsn, "triggerkit events server")
                number = secrets.randbelow(2**31 - 1) + 1
                await connection.execute(_HOLD, [number])
                self._connection, self._number = connection, number
            return self._number

    async def close(self) -> None:
        """Let go of the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def is_gone(connection: psycopg.AsyncConnection, number: int) -> bool:
    """Return whether the process of this number is gone; within a transaction."""
    cursor = await connection.execute(_IS_GONE, [number])
    return await cursor.fetchone() == (True,)
