"""A Postgres of one major version to capture from: started once, emptied after each test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.capture.rig.programs import programs_of
from tests.servers import Background
from triggerkit.embedded.account import Account, running_as_root, unprivileged_account
from triggerkit.embedded.process import GuardedProcess, Program, run_to_end

_START_TIMEOUT_S = 60.0

_SETTINGS = {
    "listen_addresses": "",
    "wal_level": "logical",
    "fsync": "off",
    "max_connections": "60",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "shared_buffers": "64MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "timezone": "UTC",
}

#: What a test leaves in its database.
_CONTENTS = (
    (sql.SQL("PUBLICATION"), sql.SQL(" CASCADE"), "SELECT pubname FROM pg_publication"),
    (
        sql.SQL("SCHEMA"),
        sql.SQL(" CASCADE"),
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'",
    ),
    (
        sql.SQL("DATABASE"),
        sql.SQL(""),
        "SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%'",
    ),
)


class Server:
    """One running Postgres of the major version `version`; it ends with this process."""

    def __init__(self, version: int, programs: Path | None = None, **settings: str) -> None:
        self.version = version
        self._background = Background()
        self._home = Path(tempfile.mkdtemp(prefix=f"triggerkit-{version}-"))
        self._home.chmod(0o755)
        self._data = self._home / "data"
        self._account = unprivileged_account() if running_as_root() else None
        self._programs = programs
        #: What it is set to besides what all are, over restarts.
        self._own = settings
        self._process: GuardedProcess | None = None
        self._in_recovery = False

    def start(self, **settings: str) -> None:
        """Make the data and start, with settings that stay.

        Raises:
            Unavailable: there are no programs of this version.
        """
        self._own.update(settings)
        self._programs = self._programs or programs_of(self.version, self._home, self._account)
        self._data.mkdir(mode=0o700)
        _give(self._data, self._account)
        initdb: list[str | Path] = [
            *(self._programs / "bin" / "initdb", "-D", self._data, "--username=postgres"),
            *("--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync"),
        ]
        self._background.run(run_to_end(self._program(initdb)))
        self._run()

    def stop(self) -> None:
        """Stop, and remove the data."""
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)

    def restart(self, **settings: str) -> None:
        """Stop in order, and start with other settings."""
        self._end()
        self._run(**settings)

    def standby(self, name: str, **settings: str) -> Server:
        """A standby of this server, which is restarted: it streams by a slot of its own."""
        self._end()
        other = Server(self.version, self._programs, **settings)
        shutil.copytree(self._data, other._data)
        request = other._data / "standby.signal"
        request.touch()
        for path in (other._data, *other._data.rglob("*")):
            _give(path, self._account)
        self._run()
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
        # The name of the database is for those who synchronize slots.
        other._own["primary_conninfo"] = f"{self.url()} application_name={name}"
        other._own["primary_slot_name"] = name
        other._run(True)
        return other

    def restart_standby(self, **settings: str) -> None:
        """Restart a standby with other settings."""
        self._end()
        self._run(True, **settings)

    def take_the_lead(self) -> None:
        """Have a standby that runs be a primary, which it stays."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
        for setting in ("primary_conninfo", "primary_slot_name"):
            self._own.pop(setting, None)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._background.run(self._process.stop(force=True))
            self._process = None

    def file(self, name: str, text: bytes) -> Path:
        """A file that this server alone may read."""
        path = self._home / name
        path.write_bytes(text)
        path.chmod(0o600)
        _give(path, self._account)
        return path

    def promote(self) -> None:
        """Go on as a standby does that takes over: on a new timeline, with slots and data."""
        self._end()
        request = self._data / "recovery.signal"
        request.touch()
        _give(request, self._account)
        self._run(restore_command="/bin/false")

    def stand_by(self) -> None:
        """Go on as a standby that can be read from, of a primary that is not there."""
        self._end()
        request = self._data / "standby.signal"
        request.touch()
        _give(request, self._account)
        self._run(True)

    def take_over(self) -> None:
        """Be a primary again after `stand_by`."""
        self._end()
        (self._data / "standby.signal").unlink()
        self._run()

    def url(self, database: str = "postgres") -> str:
        """The connection string of a database."""
        port = self._own.get("port", "5432")
        return make_conninfo(host=str(self._home), port=port, user="postgres", dbname=database)

    def new_database(self) -> str:
        """A connection string to another database beside that of the tests."""
        name = f"test_{uuid4().hex[:12]}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
            connection.execute(create.format(sql.Identifier(name)))
        return self.url(name)

    def clean(self) -> None:
        """Empty the database of the tests, which takes a tenth of the time of making another."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
            )
            while connection.execute("SELECT FROM pg_replication_slots").rowcount:
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                    "WHERE NOT active"
                )
            for kind, how, query in _CONTENTS:
                for (name,) in connection.execute(query).fetchall():
                    drop = sql.SQL("DROP {} {}{}").format(kind, sql.Identifier(name), how)
                    connection.execute(drop)
            connection.execute("CREATE SCHEMA public")

    def _run(self, in_recovery: bool = False, /, **settings: str) -> None:
        self._in_recovery = in_recovery
        options = [
            f"-c{name}={value}" for name, value in {**_SETTINGS, **self._own, **settings}.items()
        ]
        socket = f"-cunix_socket_directories={self._home}"
        self._home.chmod(0o777)
        assert self._programs is not None
        postgres = self._programs / "bin" / "postgres"
        command: list[str | Path] = [postgres, "-D", self._data, socket, *options]
        self._background.run(self._start(command))

    async def _start(self, command: list[str | Path]) -> None:
        self._process = await GuardedProcess.start(self._program(command))
        await self._process.until_ready(self._answers, _START_TIMEOUT_S)

    def _end(self) -> None:
        if self._process is not None:
            self._background.run(self._process.stop())
            self._process = None

    async def _answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.url()) as connection:
                cursor = await connection.execute("SELECT pg_is_in_recovery()")
                return await cursor.fetchone() == (self._in_recovery,)
        except psycopg.OperationalError:
            return False

    def _program(self, command: list[str | Path]) -> Program:
        return Program(
            name=f"Postgres {self.version}",
            command=command,
            log=self._home / "log",
            stop_signal=signal.SIGINT,
            force_signal=signal.SIGQUIT,
            account=self._account,
        )


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)
