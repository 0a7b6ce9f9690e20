"""Keeps the log within its limits while the stream runs, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg

from triggerkit.consumers.lag_history import note_lag
from triggerkit.consumers.retention import CursorProgress, Policy, retain, save_progress
from triggerkit.errors import CannotConnect
from triggerkit.log.retention import PATIENCE
from triggerkit.log.tables import TABLE_BYTES
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

#: Seconds between two looks at the log's age and size.
RETENTION_S = 60.0


#: The part of the log's limit that one table of it takes: so much more than the limit the log has
#: at most, beside a transaction that is under way.
TABLE_SHARE = 16


def table_bytes_of(settings: Settings) -> int:
    """Return the bytes of a table of the log, so that its oldest part can be dropped in time."""
    return min(TABLE_BYTES, settings.log_max_bytes // TABLE_SHARE)


def policy_of(settings: Settings) -> Policy:
    """Return the log's policy as the settings have it."""
    return Policy(settings.log_keep, settings.log_max_bytes)


async def keep_retaining(
    settings: Settings,
    database_id: int,
    progress: Callable[[], Awaitable[list[CursorProgress]]],
    filled: asyncio.Event,
) -> None:
    """Retain regularly, and when a table of the log is `filled`, until canceled.

    What goes wrong is told and tried again: the stream goes on.
    """
    while True:
        try:
            async with await connect(settings.state_dsn, "triggerkit retention") as connection:
                await connection.execute(PATIENCE)
                await save_progress(connection, await progress())
                await retain(connection, database_id, policy_of(settings))
                await note_lag(connection)
        except (psycopg.Error, CannotConnect) as error:
            logger.warning(
                "retention of the log failed and will be retried: %s", _first_line(error)
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(RETENTION_S):
                await filled.wait()
        filled.clear()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
