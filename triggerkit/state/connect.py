"""Connections to Postgres: pinned sessions, and errors that name the server and the remedy."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import CannotConnect, ConfigurationError

#: Pinned so that a value prints the same in the stream and in a backfill.
SESSION_OPTIONS = (
    "-c DateStyle=ISO -c TimeZone=UTC -c IntervalStyle=postgres -c extra_float_digits=3 "
    "-c search_path=pg_catalog -c default_transaction_isolation=read\\ committed"
)

#: A peer that is gone without a word is noticed within about half a minute.
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}

#: Seconds to wait for a server to answer.
CONNECT_TIMEOUT_S = 10


def redacted(dsn: str) -> str:
    """`dsn` as a short name without its password: `postgresql://user@host:port/database`."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "postgresql://(unreadable)"
    host = str(parts.get("host", "localhost"))
    user = f"{parts['user']}@" if parts.get("user") else ""
    database = parts.get("dbname", "")
    if host.startswith("/"):
        return f"postgresql://{user}/{database}?host={host}"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}{host}{port}/{database}"


def pinned(dsn: str, application_name: str) -> dict[str, Any]:
    """Return the keyword arguments of a psycopg connection with a pinned session.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # The server's library repeats the string, password and all.
        raise ConfigurationError(
            "the database URL (DATABASE_URL or TRIGGERKIT_STATE_URL) cannot be parsed; "
            "it must look like postgresql://user:password@host:5432/database"
        ) from None
    own = {**KEEPALIVES, "application_name": application_name, "client_encoding": "UTF8"}
    options = f"{parts.get('options') or ''} {SESSION_OPTIONS}".strip()
    timeout = parts.get("connect_timeout") or CONNECT_TIMEOUT_S
    return {**parts, **own, "options": options, "connect_timeout": timeout}


async def connect(
    dsn: str, application_name: str, *, replication: bool = False
) -> psycopg.AsyncConnection:
    """Open a connection in autocommit mode, its session pinned.

    Raises:
        CannotConnect: the server does not answer or refuses; the message names it.
        ConfigurationError: `dsn` is not a connection string.
    """
    parameters = pinned(dsn, application_name)
    if replication:
        parameters["replication"] = "database"
    try:
        return await psycopg.AsyncConnection.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        raise CannotConnect(
            f"cannot connect to {redacted(dsn)}: {_first_line(error)}; "
            "check that the server runs and that the URL's host, user and password are correct"
        ) from error


class Pool(AsyncConnectionPool):
    """A pool whose waits can be canceled.

    psycopg_pool waits by `asyncio.wait_for`, which on Python 3.11 forgets a cancellation that comes
    at the moment the wait ends: the task would go on forever.
    """

    async def getconn(self, timeout: float | None = None) -> psycopg.AsyncConnection:
        """Take a connection out of the pool."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        connection = await super().getconn(timeout)
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


def pool(dsn: str, application_name: str, *, size: int) -> Pool:
    """Return a pool of at most `size` pinned autocommit connections, to be opened by the caller."""
    return Pool(
        kwargs={**pinned(dsn, application_name), "autocommit": True},
        min_size=1,
        max_size=size,
        open=False,
        name=application_name,
    )


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
