"""Who reads what a tunnel prints: nobody any more, or nobody for a while."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually
from tests.acceptance.receivers import NodeReceiver, node_receiver
from tests.acceptance.tunnel_rig import BEARER, Office
from triggerkit.signature import new_secret

SIGNING = new_secret()

#: More than a pipe holds.
ROWS = 700


@pytest.fixture
def app() -> Iterator[NodeReceiver]:
    with node_receiver(BEARER, SIGNING) as receiver:
        yield receiver


@pytest.fixture
def office(tmp_path: Path, database_url: str, redis_url: str) -> Office:
    folder = tmp_path / "office"
    folder.mkdir()
    office = Office(folder, database_url, redis_url, SIGNING)
    office.sql("UPDATE triggerkit.consumers SET definition = definition || '{\"batch_size\": 1}'")
    return office


@contextmanager
def tunnel(office: Office, app: NodeReceiver) -> Iterator[subprocess.Popen[bytes]]:
    """The command, whose output only the test reads."""
    token = office.token("alice")
    where = [f"--ports={app.port}:local_endpoint", "--server", f"http://127.0.0.1:{office.port}"]
    words = [sys.executable, "-m", "triggerkit", "tunnel", *where, "--token", f"@{token}"]
    with office.process("serve"), office.process("stream"):
        office.until_serving()
        process = subprocess.Popen(
            [*words, "--output", "json"],
            env={**clean_environment(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_reader_that_is_gone_ends_it_and_nothing_is_delivered_twice(
    office: Office, app: NodeReceiver
) -> None:
    with tunnel(office, app) as process:
        assert process.stdout is not None
        assert b"ready" in process.stdout.readline()
        process.stdout.close()
        office.sql("INSERT INTO posts VALUES (1, 'x')")
        assert process.wait(30) == 0
        delivered = "SELECT count(*) FROM triggerkit.deliveries WHERE status = 200"
        eventually(lambda: office.sql(delivered) == [(1,)], 20, "its answer is noted")
    assert len(app.received) == 1


def test_a_terminal_that_takes_nothing_holds_no_delivery_up_nor_the_end(
    office: Office, app: NodeReceiver
) -> None:
    with tunnel(office, app) as process:
        assert process.stdout is not None
        assert b"ready" in process.stdout.readline()
        title = secrets.token_hex(100)
        office.sql(f"INSERT INTO posts SELECT i, '{title}' FROM generate_series(1, {ROWS}) i")
        eventually(lambda: len(app.received) == ROWS, 90, "all rows")
        os.kill(process.pid, 2)
        assert process.wait(20) == 0
