"""The data of an embedded Postgres: made by initdb, configured, and cleared of a dead server."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Final

from triggerkit.embedded.folders import LOCK_PATIENCE_S
from triggerkit.errors import AlreadyRunning, ConfigurationError

#: The superuser, and the only role.
USER: Final = "postgres"
#: Nothing listens on it: the port is only a part of the socket's name.
PORT: Final = 5432

#: `ALTER SYSTEM` wins over this file, and this file over the one that initdb wrote.
_CONFIGURATION = """\
# Written by triggerkit at every start; change settings with ALTER SYSTEM.
include = {initdb_file}
listen_addresses = ''
port = {port}
unix_socket_directories = {socket_dir}
unix_socket_permissions = 0700
wal_level = logical
max_replication_slots = 32
max_wal_senders = 32
max_connections = 200
shared_buffers = '256MB'
max_wal_size = '2GB'
checkpoint_timeout = '15min'
timezone = 'UTC'
log_timezone = 'UTC'
log_destination = 'stderr'
logging_collector = off
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


def data_version(data: Path) -> int | None:
    """Return the major version of the Postgres that made the data, None when there are none.

    Raises:
        ConfigurationError: the folder is not one of Postgres, or another user's.
    """
    try:
        return int((data / "PG_VERSION").read_text()) if data.exists() else None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{data} holds no Postgres data that this user can read; run triggerkit as the "
            "user that made them, or remove them"
        ) from error


def initdb_options(initdb: Path) -> list[str]:
    """Options of initdb; from 17 on letter case works beyond ASCII, alike on every system.

    The files are synced to disk: it costs 0.2 s once, and without it a power failure in the
    first minute could leave data that no later recovery repairs.
    """
    options = [f"--username={USER}", "--auth-local=trust", "--auth-host=reject"]
    options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
    if initdb.parent.parent.name != "pginstall":
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return options


def remove_unfinished(folder: Path) -> None:
    """Remove what an interrupted initdb left."""
    shutil.rmtree(folder, ignore_errors=True)


def write_configuration(home: Path, socket_dir: Path) -> Path:
    """Write the server's configuration file and return its path."""
    text = _CONFIGURATION.format(
        initdb_file=_quote(str(home / "data" / "postgresql.conf")),
        port=PORT,
        socket_dir=_quote('"{}"'.format(str(socket_dir).replace('"', '""'))),
    )
    target = home / "postgresql.conf"
    unfinished = home / "postgresql.conf.unfinished"
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o644)
        file.write(text)
    unfinished.replace(target)
    return target


async def clear_pid_file(data: Path) -> None:
    """Make sure that no postmaster runs on `data`, and that a dead one's file does not disturb.

    Postgres refuses to start while the process id in `postmaster.pid` exists, which after a
    restart of a container is often that of some other process: such a file is removed. The home
    must be locked, so a postmaster found here was started by other means than triggerkit.

    Raises:
        AlreadyRunning: a postmaster still runs there after 5 s.
    """
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while (pid := _running_postmaster(data)) is not None:
        if time.monotonic() > deadline:
            raise AlreadyRunning(f"another Postgres runs on {data} (process {pid}); stop it first")
        await asyncio.sleep(0.02)


def _running_postmaster(data: Path) -> int | None:
    """Return the process that `postmaster.pid` names; removes the file when that is no
    postmaster."""
    pid_file = data / "postmaster.pid"
    pid = _named_process(pid_file)
    folder = None if pid is None else _working_folder(pid)
    if folder is None:
        return None
    if folder == data.resolve():
        return pid
    pid_file.unlink()
    return None


def _named_process(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _working_folder(pid: int) -> Path | None:
    """Return where a process works, which for all of Postgres is its data; None if that is unknown.

    Unknown are ended processes, those of other users, and all outside Linux: there Postgres
    itself judges.
    """
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None


def _quote(value: str) -> str:
    """Return a quoted value of a Postgres configuration file."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
