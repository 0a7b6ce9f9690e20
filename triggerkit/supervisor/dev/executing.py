"""The runs that the workers of this `dev` execute while it stops, or when one of them died."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.state.connect import connect

#: Seconds Postgres may take; it may be what is away.
PATIENCE_S = 2.0

_EXECUTING = """
SELECT count(*) FROM triggerkit.runs r JOIN triggerkit.workers w ON w.id = r.worker
WHERE r.status = 'executing' AND w.hostname = %s AND w.parent_pid = ANY (%s)
"""

#: What has no lease is queued again at the keeper's next look, instead of when the lease is over.
_FORGET = "DELETE FROM triggerkit.workers WHERE hostname = %s AND parent_pid = ANY (%s)"


async def count_executing(dsn: str, workers: Sequence[int]) -> int | None:
    """Count the runs that the worker processes `workers` execute; None when Postgres is away."""
    return await _ask(dsn, workers, _EXECUTING)


async def forget_dead(dsn: str, workers: Sequence[int]) -> int | None:
    """End the leases of worker processes of this machine that are known to be dead.

    Returns how many runs they had: the keeper has them executed again. None when Postgres is away.
    """
    return await _ask(dsn, workers, _EXECUTING, _FORGET)


async def _ask(dsn: str, workers: Sequence[int], count: str, *then: str) -> int | None:
    parameters = [socket.gethostname(), list(workers)]
    try:
        async with asyncio.timeout(PATIENCE_S), await connect(dsn, "triggerkit dev") as state:
            row = await (await state.execute(count, parameters)).fetchone()
            for statement in then:
                await state.execute(statement, parameters)
            return None if row is None else int(row[0])
    except (psycopg.Error, TriggerkitError, TimeoutError):
        return None
