"""Connections of other libraries, as the psycopg connection that they hold.

SQLAlchemy and Django keep one of psycopg. asyncpg speaks for itself: it is given our statements.
Nothing of these libraries is imported: they are known by the names of their modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg

from triggerkit.errors import ConfigurationError

_UNKNOWN = (
    "connection= is a psycopg 3 connection, an asyncpg one, a connection or session of SQLAlchemy "
    "on psycopg 3 or asyncpg, or a connection of Django on psycopg 3; not {}"
)


#: A parameter as psycopg has it, with or without a name.
_PARAMETER = re.compile(r"%(?:\((\w+)\))?[sbt]")


def library_of(connection: object) -> str:
    """Return the package that the connection's class comes from."""
    return type(connection).__module__.partition(".")[0]


def sync_connection(connection: Any) -> psycopg.Connection[Any]:
    """Return the psycopg connection of a sync caller.

    Raises:
        ConfigurationError: it has none, or an async one.
    """
    library = library_of(connection)
    held = connection
    if library == "sqlalchemy" and not _is_async(connection):
        held = _of_sqlalchemy(connection)
    elif library == "django":
        connection.ensure_connection()
        held = connection.connection
    if isinstance(held, psycopg.Connection):
        return held
    if isinstance(held, psycopg.AsyncConnection) or _is_async(held):
        raise ConfigurationError(
            "an async connection is for async callers: use `await task.atrigger(…)`"
        )
    raise ConfigurationError(_UNKNOWN.format(_named(held)))


async def async_connection(connection: Any) -> Any:
    """Return the connection of psycopg or asyncpg of an async caller.

    Raises:
        ConfigurationError: it has none, or a sync one.
    """
    held = connection
    if library_of(connection) == "sqlalchemy" and _is_async(connection):
        held = await _of_async_sqlalchemy(connection)
    if isinstance(held, psycopg.AsyncConnection) or library_of(held) == "asyncpg":
        return held
    if isinstance(held, psycopg.Connection) or library_of(held) in ("django", "sqlalchemy"):
        raise ConfigurationError("a sync connection is for sync callers: use `task.trigger(…)`")
    raise ConfigurationError(_UNKNOWN.format(_named(held)))


def for_asyncpg(query: str, parameters: Any) -> tuple[str, list[Any]]:
    """Return a statement with numbered parameters, and their values in order."""
    values: list[Any] = []
    places: dict[str, int] = {}
    positional = None if isinstance(parameters, Mapping) else iter(parameters)

    def numbered(found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None or name not in places:
            values.append(parameters[name] if positional is None else next(positional))
            if name is None:
                return f"${len(values)}"
            places[name] = len(values)
        return f"${places[name]}"

    return _PARAMETER.sub(numbered, query).replace("%%", "%"), values


def _is_async(connection: object) -> bool:
    return "asyncio" in type(connection).__module__ or library_of(connection) == "asyncpg"


def _of_sqlalchemy(connection: Any) -> Any:
    """Return what is below a connection or a session, whose transaction has begun then."""
    if not hasattr(connection, "exec_driver_sql"):
        connection = connection.connection()
    connection.exec_driver_sql("SELECT 1")
    return connection.connection.driver_connection


async def _of_async_sqlalchemy(connection: Any) -> Any:
    if not hasattr(connection, "exec_driver_sql"):
        connection = await connection.connection()
    await connection.exec_driver_sql("SELECT 1")
    return (await connection.get_raw_connection()).driver_connection


def _named(held: object) -> str:
    return f"{type(held).__module__}.{type(held).__qualname__}"
