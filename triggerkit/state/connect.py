"""Connections to Postgres: pinned sessions, and errors that name the server and the remedy."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import psycopg
from psycopg_pool import AsyncConnectionPool
from psycopg_pool.pool_async import AddConnection, MaintenanceTask

from triggerkit.configuration.addresses import read_database_url, shown_database
from triggerkit.configuration.certificates import POSTGRES, certificate_problem
from triggerkit.configuration.tls_files import tls_files
from triggerkit.errors import CannotConnect
from triggerkit.state.adapt import adapt

#: What every session is set to, whatever the role, the database, the URL or the environment ask
#: for. Values print and are read the same in the stream and in a backfill; nobody's limits for
#: queries end a transaction that would be begun again forever; no warning of the stream is held
#: back.
SESSION = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "extra_float_digits": "3",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
}

#: The same, from the given version of the server on.
LATER_SESSION = {
    140000: {"idle_session_timeout": "0"},
    170000: {"transaction_timeout": "0"},
}

#: A commit that returns is durable, or what the log says is durable would not be. Other levels than
#: `off` are all durable here, and differ in what they promise of standbys.
_DURABLE = (
    "CASE current_setting('synchronous_commit') "
    "WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
)

#: A server that is gone without a word is noticed within half a minute: by probes while
#: nothing is under way, and by the last where a packet is, of which no probe is sent. Without it, a
#: statement waits a quarter of an hour on a line that drops what it sent.
LINE = {
    "keepalives_idle": 6,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: The server's side of it: until it notices, a session that is in a transaction keeps its locks
#: from whoever goes on with its work. What it sends may stay unread for no longer, either.
SERVERS_LINE = {
    "tcp_keepalives_idle": "6",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

#: What libpq repeats of a parameter that it cannot use.
_REPEATED = re.compile(r'^(invalid [^"]*)"[^"]*"?')

#: A setting in `options`, as libpq has them; poolers drop those, or refuse the connection for them.
_OPTION = re.compile(r"-c\s*([a-z_]+)=(\S*)")

#: What poolers answer that do not pass a parameter on.
_REFUSED = "unsupported startup parameter"

#: Seconds to wait for a server to answer.
CONNECT_TIMEOUT_S = 10

#: Seconds after which a pool tries again to connect, however long the server has been away.
TRY_AGAIN_S = 1.0


def pinned(dsn: str, application_name: str) -> dict[str, Any]:
    """Return the keyword arguments of a psycopg connection whose session is then to be pinned.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
    """
    parts = read_database_url(dsn)
    own: dict[str, Any] = {"application_name": application_name, "client_encoding": "UTF8"}
    # So that the statement which pins the session is not itself ended.
    options = f"{parts.get('options') or ''} -c statement_timeout=0".strip()
    timeout = parts.get("connect_timeout") or CONNECT_TIMEOUT_S
    return {
        **LINE,
        **tls_files(parts),
        **parts,
        **own,
        "options": options,
        "connect_timeout": timeout,
    }


def session_of(server_version: int) -> dict[str, str]:
    """Return the settings that a session of a server of this version is pinned to."""
    later = [pins for version, pins in LATER_SESSION.items() if server_version >= version]
    return {name: value for pins in (SESSION, *later) for name, value in pins.items()}


def _pins(server_version: int) -> bytes:
    """Return the statement that pins a session, and answers which process serves it.

    Set afterwards, not when connecting: what the environment (PGTZ, PGDATESTYLE) or a pooler says
    would win over that.
    """
    pins = [*session_of(server_version).items(), *SERVERS_LINE.items()]
    settings = [f"set_config('{name}', '{value}', false)" for name, value in pins]
    return f"SELECT pg_backend_pid(), {', '.join(settings)}, {_DURABLE}".encode()


def _asked_for(options: str | None, server_version: int) -> list[list[str]]:
    """Return the names and the values of what `options` sets besides the pins."""
    pins = session_of(server_version)
    asked = [pair for pair in _OPTION.findall(options or "") if pair[0] not in pins]
    return [[name for name, _ in asked], [value for _, value in asked]]


#: A pooler that drops `options` instead of refusing them says nothing of it.
_SET_LATER = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) o (name, value)"
)


class PinnedConnection(psycopg.AsyncConnection):
    """A connection whose session is pinned once it is open, also where a pooler is in between."""

    #: Whether its server refused a write: it is a standby, or became one.
    is_read_only = False

    async def wait(self, *args: Any, **options: Any) -> Any:
        """Have a statement answered."""
        try:
            return await super().wait(*args, **options)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.is_read_only = True
            raise

    @classmethod
    async def connect(cls, conninfo: str = "", **parameters: Any) -> Self:
        """Connect by `pinned` parameters."""
        options = parameters.get("options")
        try:
            connection = await super().connect(conninfo, **parameters)
        except psycopg.OperationalError as error:
            if _REFUSED not in str(error) or "replication" in parameters:
                raise
            connection = await super().connect(conninfo, **{**parameters, "options": None})
        try:
            await connection._pin(options)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _pin(self, options: str | None) -> None:
        adapt(self)
        version = self.info.server_version
        row = await (await self.execute(_pins(version))).fetchone()
        if row is not None and row[0] != self.info.backend_pid:
            await self.execute(_SET_LATER, _asked_for(options, version))


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
        return await PinnedConnection.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        said = _first_line(error)
        raise CannotConnect(
            f"cannot connect to {shown_database(dsn)}: {said}; {_remedy(said)}"
        ) from error


def _remedy(said: str) -> str:
    # PgBouncer, and those that speak as it does, of what they do not pass on.
    if _REFUSED in said:
        return "a pooler answers there; set the URL to the server's own address and port"
    if problem := certificate_problem(said, POSTGRES):
        return ": ".join(problem)
    return "check that the server runs and that the URL's host, user and password are correct"


def connect_blocking(parameters: Mapping[str, Any]) -> psycopg.Connection:
    """Open a connection of `pinned` parameters in autocommit mode, for a thread; its session is
    pinned.

    Raises:
        psycopg.OperationalError: the server does not answer or refuses.
    """
    options = parameters.get("options")
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        if _REFUSED not in str(error):
            raise
        connection = psycopg.connect(**{**parameters, "options": None}, autocommit=True)
    adapt(connection)
    try:
        version = connection.info.server_version
        row = connection.execute(_pins(version)).fetchone()
        if row is not None and row[0] != connection.info.backend_pid:
            connection.execute(_SET_LATER, _asked_for(options, version))
    except BaseException:
        connection.close()
        raise
    return connection


def cut_line(connection: psycopg.Connection | psycopg.AsyncConnection) -> None:
    """End a connection whose server does not answer: what waits for it fails. Not canceled: psycopg
    would wait for the server to confirm that, over the same line."""
    gone = suppress(OSError, psycopg.OperationalError)
    with gone, socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class Pool(AsyncConnectionPool):
    """A pool whose waits can be canceled, and that is back soon after its server, or another, is.

    psycopg_pool waits by `asyncio.wait_for`, which on Python 3.11 forgets a cancellation that comes
    at the moment the wait ends: the task would go on forever. By itself it waits longer between two
    tries to connect the longer the server is away, up to minutes.
    """

    #: Connections in use. The pool's own count has those that it tries to make, too.
    lent = 0

    #: Whether it gives out none that has ended.
    is_checked = False

    async def getconn(self, timeout: float | None = None) -> psycopg.AsyncConnection:
        """Take a connection out of the pool."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        connection = await self._living(self.timeout if timeout is None else timeout)
        self.lent += 1
        if task is not None and task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection

    async def putconn(self, conn: psycopg.AsyncConnection) -> None:
        """Give a connection back to the pool."""
        self.lent -= 1
        if isinstance(conn, PinnedConnection) and conn.is_read_only:
            # A failover may have left it, and those beside it, at a server that is a standby now.
            await self.drain()
        await super().putconn(conn)

    async def schedule_task(self, task: MaintenanceTask, delay: float) -> None:
        """Do something for the pool later; try to connect at least each second."""
        is_try = isinstance(task, AddConnection)
        await super().schedule_task(task, min(delay, TRY_AGAIN_S) if is_try else delay)

    async def _living(self, timeout_s: float) -> psycopg.AsyncConnection:
        now = asyncio.get_running_loop().time
        until = now() + timeout_s
        while True:
            connection = await super().getconn(max(0.0, until - now()))
            if not self.is_checked:
                return connection
            try:
                await self.check_connection(connection)
            except psycopg.Error:
                await super().putconn(connection)
                # Those beside it have probably ended with it.
                await self.check()
            except BaseException:
                await super().putconn(connection)
                raise
            else:
                return connection


def pool(
    dsn: str,
    application_name: str,
    *,
    size: int,
    statement_s: float | None = None,
    wait_s: float = 30.0,
    is_checked: bool = False,
) -> Pool:
    """Return a pool of at most `size` pinned autocommit connections, to be opened by the caller;
    with `statement_s` a statement that takes longer is ended. One waits `wait_s` for a connection,
    where one does not say how long. One that `is_checked` gives out none that has ended meanwhile,
    for a round trip each time: it is for those who would not try again by themselves."""

    async def configure(connection: psycopg.AsyncConnection) -> None:
        if statement_s is not None:
            await connection.execute(f"SET statement_timeout = {int(statement_s * 1000)}")

    made = Pool(
        connection_class=PinnedConnection,
        kwargs={**pinned(dsn, application_name), "autocommit": True},
        configure=configure,
        min_size=1,
        max_size=size,
        timeout=wait_s,
        open=False,
        name=application_name,
    )
    made.is_checked = is_checked
    return made


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip()
    return _REPEATED.sub(r"\1value", text.splitlines()[0]) if text else type(error).__name__
