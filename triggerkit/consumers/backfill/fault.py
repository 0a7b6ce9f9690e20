"""What ends a backfill: a fault of its table, for a person to mend, or of the connection."""

from __future__ import annotations

import psycopg
from psycopg.errors import (
    CharacterNotInRepertoire,
    InsufficientPrivilege,
    LockNotAvailable,
    QueryCanceled,
    UntranslatableCharacter,
)

from triggerkit.configuration.table_name import TableName
from triggerkit.errors import CannotConnect, PreflightFailed, TriggerkitError
from triggerkit.state.faults import is_away


def fault_of(error: TriggerkitError | psycopg.Error) -> str | None:
    """Describe what is wrong with the table, for a person to mend, without a row's values.

    None when it is not the table's fault but the connection's: that is made again.
    """
    if isinstance(error, TriggerkitError):
        return None if isinstance(error, CannotConnect) else str(error)
    if isinstance(error, QueryCanceled | LockNotAvailable):
        return f"a query was ended by the server ({_primary(error)}); resume the backfill"
    if is_away(error):
        return None
    if isinstance(error, CharacterNotInRepertoire | UntranslatableCharacter):
        return (
            "a value is no text that UTF-8 has (the server names its bytes in its own log); "
            "correct it, then resume the backfill"
        )
    if isinstance(error, psycopg.DataError):
        # Its message would repeat the value.
        return (
            f"where it was does not fit the table's columns any more (SQLSTATE {error.sqlstate}); "
            "cancel the backfill and start another"
        )
    if isinstance(error, InsufficientPrivilege):
        return f"{_primary(error)}; grant the role SELECT on it, then resume the backfill"
    return _primary(error)


def may_not_read(table: TableName) -> PreflightFailed:
    """Return the error of a table whose rows the source's role may not see."""
    return PreflightFailed(
        f"the role of DATABASE_URL may not read {table}; let it: "
        f"GRANT SELECT ON {table} TO the role"
    )


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__
