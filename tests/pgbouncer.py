"""A PgBouncer of the tests' own, in front of their Postgres: Debian's, on the loopback address."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.ports import free_port
from tests.servers import Servers
from triggerkit.embedded.process import GuardedProcess, Program

_PROGRAM = Path("/usr/sbin/pgbouncer")

_CONFIG = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 90
max_client_conn = 400
{more}
"""


def require_pgbouncer() -> None:
    """Skip the test where the program is missing."""
    if _PROGRAM.exists():
        return
    missing = f"{_PROGRAM} is missing: install Debian's pgbouncer"
    if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def pgbouncer(servers: Servers, folder: Path, url: str, mode: str, more: str = "") -> Iterator[str]:
    """Start one that pools in a mode, with more lines of settings; yield `url` by way of it."""
    require_pgbouncer()
    parts, listen_port = conninfo_to_dict(url), free_port()
    host = Path(str(parts["host"]))
    if os.getuid() == 0:
        # It refuses to be root.
        more += f"\nuser = {pwd.getpwuid(host.stat().st_uid).pw_name}"
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=host, port=parts.get("port", 5432), listen_port=listen_port, mode=mode, more=more
        )
    )
    through = make_conninfo(url, host="127.0.0.1", port=listen_port, sslmode="disable")
    process = servers.run(_started(Program(
        name="PgBouncer",
        command=[_PROGRAM, config],
        log=folder / "pgbouncer.log",
        stop_signal=signal.SIGINT,
        force_signal=signal.SIGKILL,
    ), through))  # fmt: skip
    try:
        yield through
    finally:
        servers.run(process.stop(force=True))


async def _started(program: Program, url: str) -> GuardedProcess:
    async def answers() -> bool:
        return await asyncio.to_thread(_is_there, url)

    process = await GuardedProcess.start(program)
    await process.until_ready(answers, 20)
    return process


def _is_there(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
