"""Where the log of a database was begun: it stays there, since what it has is not moved."""

from __future__ import annotations

from typing import Final, Literal

import psycopg

from triggerkit.errors import ConfigurationError

#: Where a log can be.
Place = Literal["postgres", "kafka"]

_BEGIN: Final = """
UPDATE triggerkit.databases SET log = %(place)s
WHERE id = %(database)s AND (log = %(place)s OR next_position = 1)
"""

_PLACE: Final = "SELECT log FROM triggerkit.databases WHERE id = %s"


async def begin_log(state: psycopg.AsyncConnection, database_id: int, place: Place) -> None:
    """Have the log of a database be at `place`, unless it was begun at another.

    Raises:
        ConfigurationError: it was.
    """
    cursor = await state.execute(_BEGIN, {"place": place, "database": database_id})
    if cursor.rowcount != 1:
        await require_log(state, database_id, place)


async def require_log(state: psycopg.AsyncConnection, database_id: int, place: Place) -> None:
    """Let only pass who writes or reads the log where it is.

    Raises:
        ConfigurationError: it is at another place.
    """
    row = await (await state.execute(_PLACE, [database_id])).fetchone()
    if row is not None and row[0] != place:
        raise ConfigurationError(
            f"TRIGGERKIT_LOG is {place}, and the log of this database was begun in {row[0]}: what "
            f"it has is not moved, and would not be delivered; set TRIGGERKIT_LOG to {row[0]}"
        )
