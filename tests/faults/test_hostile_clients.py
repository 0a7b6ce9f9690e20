"""A real `serve` under clients that mean no good: it stays small, and answers others at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.acceptance.project import clean_environment, eventually
from tests.conftest import WEBHOOK_SECRET
from triggerkit.web.protocol import HEAD_S, MAX_CONNECTIONS, MAX_HEAD_BYTES

#: Seconds that an answer about health may take, whatever else goes on.
HEALTHY_S = 0.1

#: What the process may take in memory, in bytes; it starts with about 110 MB.
MEMORY_BYTES = 250 * 1024 * 1024

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Serve:
    """`triggerkit serve` on a port of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.pid = process.pid
        self.port = port

    def connect(self) -> socket.socket:
        """A connection of a stranger's."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=HEAD_S + 10)

    def health_s(self) -> float:
        """How long an answer about health takes, in seconds; the best of three, for the load."""
        return min(self._one_health_s() for _ in range(3))

    def peak_bytes(self) -> int:
        """The most memory that the process ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def _one_health_s(self) -> float:
        began = time.monotonic()
        with urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        return time.monotonic() - began


@pytest.fixture
def serve(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Serve]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "triggerkit.toml").write_text("tasks = []\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", "serve", "--port", str(port)],
        cwd=tmp_path,
        env=clean_environment()
        | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        },
    )
    try:
        serve = Serve(process, port)
        eventually(lambda: is_listening(serve), 30, "serve to listen")
        yield serve
    finally:
        process.terminate()
        process.wait(20)


def is_listening(serve: Serve) -> bool:
    try:
        serve.health_s()
    except OSError:
        return False
    return True


def test_pipelined_requests_whose_answers_nobody_reads_take_no_memory(serve: Serve) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(serve.connect())
            client.settimeout(0.5)
            send_all_it_takes(client, GET * 20_000)
        assert serve.health_s() < HEALTHY_S
    assert serve.peak_bytes() < MEMORY_BYTES


def send_all_it_takes(client: socket.socket, data: bytes) -> None:
    """Send until the server takes no more."""
    try:
        client.sendall(data)
    except OSError:
        return


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 20_000_000, b"431"),
        (b"GET /healthz?" + b"a" * 20_000_000, b"431"),
        (b"GET /healthz HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 2_000_000, b"431"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", b"431"),
    ],
    ids=["header", "target", "headers", "whole"],
)
def test_a_head_that_is_too_large_is_refused(serve: Serve, head: bytes, answer: bytes) -> None:
    with serve.connect() as client:
        send_all_it_takes(client, head)
        assert serve.health_s() < HEALTHY_S
        assert answer_of(client) in (answer, b"")
    assert serve.peak_bytes() < MEMORY_BYTES


def test_a_head_that_is_just_small_enough_is_answered(serve: Serve) -> None:
    with serve.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n")
        assert answer_of(client) == b"200"


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nX: "], ids=["nothing", "some"])
def test_connections_whose_head_does_not_come_are_closed(serve: Serve, begun: bytes) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(serve.connect()) for _ in range(300)]
        for client in clients:
            client.sendall(begun)
        assert serve.health_s() < HEALTHY_S
        began = time.monotonic()
        assert {answer_of(client) for client in clients} <= {b"408", b""}
        assert time.monotonic() - began < HEAD_S + 5


def test_a_head_that_drips_is_no_longer_waited_for_than_one_that_does_not_come(
    serve: Serve,
) -> None:
    with serve.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        client.settimeout(0.5)
        began = time.monotonic()
        while (answer := drip(client)) is None:
            assert time.monotonic() - began < HEAD_S + 5
        assert answer in (b"408", b"")


def drip(client: socket.socket) -> bytes | None:
    """Send a byte more; the answer, if there is one."""
    try:
        client.sendall(b"a")
        return answer_of(client)
    except TimeoutError:
        return None
    except OSError:
        return b""


def test_who_opens_all_connections_keeps_nobody_out(serve: Serve) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 100):
            stack.enter_context(serve.connect())
        assert serve.health_s() < HEALTHY_S
        assert len(os.listdir(f"/proc/{serve.pid}/fd")) < MAX_CONNECTIONS + 100


def test_requests_on_a_kept_connection_are_answered_one_after_the_other(serve: Serve) -> None:
    with serve.connect() as client:
        for _ in range(3):
            client.sendall(GET * 10)
            answers = b""
            while answers.count(b"HTTP/1.1 200") < 10:
                answers += client.recv(65536)


def answer_of(client: socket.socket) -> bytes:
    """The status that the server answers, nothing if it just closes the connection."""
    try:
        line = client.recv(4096).partition(b"\r\n")[0]
    except ConnectionError:
        return b""
    return line.split(b" ")[1] if line else b""
