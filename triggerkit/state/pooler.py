"""Tell whether a session is our own: some poolers give each transaction another."""

from __future__ import annotations

import asyncio

import psycopg

from triggerkit.configuration.addresses import shown_database
from triggerkit.errors import PreflightFailed
from triggerkit.state.connect import connect

#: Looks at who serves two connections at once. Others that use the pooler change it in between.
LOOKS = 5

#: Seconds for a second session: a pooler without room for one lets it wait.
SECOND_S = 5.0

_NO_ROOM = (
    "the pooler in front of it has no room for another session",
    "raise the pooler's default_pool_size: see docs/deploy.md",
)
_SHARED = (
    "the pooler in front of it gives each transaction another session, not each client its own",
    "set pool_mode = session there, or TRIGGERKIT_STATE_URL to the server's own address and port",
)


async def pooler_problem(connection: psycopg.AsyncConnection, dsn: str) -> tuple[str, str] | None:
    """Return what is wrong with the pooler that `connection` of `dsn` goes through, and the remedy;
    None where it keeps each session, or where there is none."""
    if await _served_by(connection) == connection.info.backend_pid:
        return None
    try:
        async with asyncio.timeout(SECOND_S), await connect(dsn, "triggerkit check") as other:
            # One server for two clients at once, or two for one: a session is nobody's own.
            mine, others = set(), set()
            for _ in range(LOOKS):
                mine.add(await _served_by(connection))
                others.add(await _served_by(other))
            if len(mine) == len(others) == 1 and mine != others:
                return None
            # What we set may be another client's next.
            for one in (connection, other):
                await one.execute("RESET ALL")
    except TimeoutError:
        return _NO_ROOM
    return _SHARED


async def require_own_session(connection: psycopg.AsyncConnection, dsn: str) -> None:
    """See that a session of the state is nobody else's.

    Raises:
        PreflightFailed: a pooler shares it.
    """
    problem = await pooler_problem(connection, dsn)
    if problem is not None:
        detail, remedy = problem
        raise PreflightFailed(f"{shown_database(dsn)}: {detail}; {remedy}")


async def _served_by(connection: psycopg.AsyncConnection) -> int:
    # What is prepared there another client finds under a name of its own.
    row = await (await connection.execute("SELECT pg_backend_pid()", prepare=False)).fetchone()
    assert row is not None
    return int(row[0])
