"""The Postgres that `triggerkit dev` brings along: a real server with pgvector, no Docker.

It listens on a Unix socket in a folder that other users cannot enter, so it needs no password.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from triggerkit.embedded.account import (
    Account,
    check_named,
    owner_of,
    running_as_root,
    shared_name,
    unprivileged_account,
)
from triggerkit.embedded.cluster import (
    PORT,
    USER,
    clear_pid_file,
    data_version,
    initdb_options,
    remove_unfinished,
    write_configuration,
)
from triggerkit.embedded.folders import lock_home, private_folder, server_home, socket_folder
from triggerkit.embedded.process import GuardedProcess, Program, run_to_end
from triggerkit.embedded.programs import postgres_folder, reachable_postgres
from triggerkit.embedded.server import EmbeddedServer

#: The database made for the project; it has the extension `vector`.
DATABASE: Final = "triggerkit"
#: How long a start may take, recovery after a crash included, in seconds.
START_TIMEOUT_S = 120.0

_SOCKET_NAME = f".s.PGSQL.{PORT}"


class EmbeddedPostgres(EmbeddedServer):
    """A Postgres. Run by root, the server runs as an unprivileged user."""

    NAME = "Postgres"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self._socket_dir: Path | None = None
        #: The user that it runs as instead of root, if others may run as that one, too: they can
        #: enter the socket's folder and read the data.
        self.shared_user: str | None = None

    @property
    def url(self) -> str:
        """The URL of the database `triggerkit`, known once started.

        Raises:
            CannotConnect: not started yet.
        """
        if self._socket_dir is None:
            raise self._not_started()
        host = quote(str(self._socket_dir), safe="")
        return f"postgresql://{USER}@/{DATABASE}?host={host}&port={PORT}"

    async def start(self) -> None:
        """Start the server and return once the database `triggerkit` answers.

        Raises:
            AlreadyRunning: a server runs on these data and did not go within 5 s.
            CannotConnect: it did not start; the message ends with its last log lines.
            ConfigurationError: a folder, a user or a program it needs is missing.
        """
        self._require_stopped()
        account = await asyncio.to_thread(_account, self._state_dir)
        self.shared_user = None if account is None else shared_name(account)
        home = await asyncio.to_thread(server_home, self._state_dir, "postgres", account)
        lock_fd = await lock_home(home, self.NAME)
        try:
            await self._start_locked(home, account, lock_fd)
        except BaseException:
            await self.stop(force=True)
            raise
        finally:
            os.close(lock_fd)

    async def _start_locked(self, home: Path, account: Account | None, lock_fd: int) -> None:
        data = home / "data"
        installed = await asyncio.to_thread(postgres_folder, data_version(data))
        programs = await asyncio.to_thread(reachable_postgres, installed, home, account)
        if not data.exists():
            await self._initialise(programs / "bin" / "initdb", home, account, lock_fd)
        await clear_pid_file(data)
        self._socket_dir = socket_folder(home, _SOCKET_NAME, account)
        configuration = write_configuration(home, self._socket_dir)
        postgres = programs / "bin" / "postgres"
        command: list[str | Path] = [postgres, "-D", data, "-c", f"config_file={configuration}"]
        self._server = await GuardedProcess.start(self._program(command, account), [lock_fd])
        await self._server.until_ready(self._answers, START_TIMEOUT_S)
        await self._ensure_database()

    async def _initialise(
        self, initdb: Path, home: Path, account: Account | None, lock_fd: int
    ) -> None:
        """Make the data in a folder that gets its name when complete and synced to disk."""
        unfinished = home / "data.unfinished"
        await asyncio.to_thread(remove_unfinished, unfinished)
        private_folder(unfinished, account)
        command: list[str | Path] = [initdb, "-D", unfinished, *initdb_options(initdb)]
        await run_to_end(self._program(command, account), [lock_fd])
        unfinished.rename(home / "data")

    def _program(self, command: Sequence[str | Path], account: Account | None) -> Program:
        return Program(
            name=self.NAME,
            command=command,
            log=self._log,
            stop_signal=signal.SIGINT,
            force_signal=signal.SIGQUIT,
            account=account,
        )

    async def _answers(self) -> bool:
        try:
            connection = await self._connect("postgres")
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def _ensure_database(self) -> None:
        async with await self._connect("postgres") as connection:
            found = await connection.execute(
                "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
            )
            if found.rowcount == 0:
                await connection.execute(
                    sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE))
                )
        async with await self._connect(DATABASE) as connection:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    async def _connect(self, database: str) -> psycopg.AsyncConnection:
        conninfo = make_conninfo(self.url, dbname=database, connect_timeout=10)
        return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


def _account(state_dir: Path) -> Account | None:
    """Whom to run as: nobody else, or, when root, the owner of the data or a default user."""
    if not running_as_root():
        check_named(os.geteuid())
        return None
    data = state_dir / "postgres" / "data"
    return owner_of(data) if data.exists() else unprivileged_account()
