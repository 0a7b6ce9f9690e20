"""Tell errors of Postgres apart: it is away, or the values or the set-up are to blame."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import errors

#: Classes of SQLSTATE of a server that cannot do it now: connections, conflicts with others,
#: resources, an object in use, an operator, the system.
_AWAY: Final = frozenset({"08", "40", "53", "55", "57", "58"})

#: Classes of SQLSTATE that blame the values: data, integrity, limits such as an index row's size.
_VALUES: Final = frozenset({"22", "23", "54"})

#: What Postgres says where a schema is missing, or of a version that has other tables and columns.
OTHER_SCHEMA: Final = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
)

#: The server was made read-only: it is a standby now, or about to be one.
READ_ONLY: Final = "25006"


def is_away(error: BaseException) -> bool:
    """Tell whether the same may succeed later: Postgres, or the connection to it, is away."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return is_read_only(error)
    # Errors of the connection and of the pool come from the client, and have no SQLSTATE.
    return error.sqlstate is None or error.sqlstate[:2] in _AWAY


def blames_values(error: BaseException) -> bool:
    """Tell whether no later try can help, since the values cannot be stored."""
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return True
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _VALUES


def is_read_only(error: BaseException) -> bool:
    """Tell whether the server takes no writes."""
    return isinstance(error, psycopg.Error) and error.sqlstate == READ_ONLY
