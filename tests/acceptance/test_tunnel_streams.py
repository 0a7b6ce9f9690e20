"""The command `tunnel` where its input or its output is not what a terminal gives."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually
from tests.acceptance.receivers import NodeReceiver, node_receiver
from tests.acceptance.tunnel_rig import BEARER, Office
from triggerkit.signature import new_secret

SIGNING = new_secret()

TAKEN = "SELECT count(*) FROM triggerkit.deliveries WHERE status = 200"


@pytest.fixture
def app() -> Iterator[NodeReceiver]:
    with node_receiver(BEARER, SIGNING) as receiver:
        yield receiver


@pytest.fixture
def office(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Office]:
    folder = tmp_path / "office"
    folder.mkdir()
    made = Office(folder, database_url, redis_url, SIGNING)
    with made.process("serve"), made.process("stream"):
        made.until_serving()
        yield made


def options(office: Office, app: NodeReceiver) -> list[str]:
    where = f"ws://127.0.0.1:{office.port}"
    ports, token = f"--ports={app.port}:local_endpoint", f"@{office.token('alice')}"
    return [ports, "--server", where, "--token", token]


def environment() -> dict[str, str]:
    return {**clean_environment(), "PYTHONPATH": str(ROOT), "TERM": "dumb", "NO_COLOR": "1"}


def in_shell(line: str, *given: str) -> list[str]:
    """A line of a shell, in which `"$@"` stands for the command."""
    return ["sh", "-c", line, "sh", sys.executable, "-m", "triggerkit", "tunnel", *given]


def started(office: Office, line: str, *given: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        in_shell(line, *given),
        cwd=office.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("without", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_needs_no_standard_stream(office: Office, app: NodeReceiver, without: str) -> None:
    process = started(office, f'exec "$@" {without}', *options(office, app))
    try:
        office.sql("INSERT INTO posts VALUES (1, 'x')")
        eventually(lambda: office.sql(TAKEN) == [(1,)] or process.poll() is not None, 30, "the row")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said) == (0, "")
        assert len(app.received) == 1
    finally:
        process.kill()
        process.wait()


def test_a_disk_that_is_full_is_told_and_ends_it(office: Office, app: NodeReceiver) -> None:
    process = started(office, 'exec "$@" >/dev/full', *options(office, app))
    _, said = process.communicate(timeout=40)
    assert process.returncode == 1
    assert "No space left on device" in said
    assert "Traceback" not in said


class OnTerminal:
    """A shell whose terminal is its own, as a person has it."""

    def __init__(self, office: Office, line: str, *given: str) -> None:
        self.shown = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(office.folder)
            os.execvpe("sh", in_shell(line, *given), environment())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        # At the end of the last writer Linux answers with an error.
        try:
            while part := os.read(self.terminal, 4096):
                self.shown += part
        except OSError:
            return

    def wait_for(self, text: str) -> None:
        eventually(lambda: text.encode() in self.shown, 30, lambda: self.shown.decode())

    def kill(self, pid: int) -> None:
        """End the command, and the shell once it has."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def spent_s(pid: int) -> float:
    """The seconds that a process has computed."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def test_in_the_background_of_a_shell_it_goes_on(office: Office, app: NodeReceiver) -> None:
    """The terminal is the shell's: whoever changes it, or reads its keys, would be stopped."""
    line = 'set -m; "$@" & echo "pid=$!"; wait'
    shell = OnTerminal(office, line, *options(office, app))
    shell.wait_for("pid=")
    pid = int(re.findall(rb"pid=(\d+)", shell.shown)[0])
    try:
        shell.wait_for("0 messages wait")
        office.sql("INSERT INTO posts VALUES (1, 'x')")
        shell.wait_for("1 row")
        assert b"keys:" not in shell.shown
    finally:
        shell.kill(pid)


def test_a_terminal_that_is_gone_is_not_asked_for_keys_on_and_on(
    office: Office, app: NodeReceiver
) -> None:
    shell = OnTerminal(office, 'trap "" HUP; exec "$@"', *options(office, app))
    try:
        shell.wait_for("keys:")
        os.close(shell.terminal)
        before_s = spent_s(shell.pid)
        # As long as nothing is to be printed, nothing tells it that it is alone.
        eventually(lambda: len(office.sql("SELECT pg_sleep(3)")) == 1, 20, "a while")
        assert spent_s(shell.pid) - before_s < 1
        office.sql("INSERT INTO posts VALUES (1, 'x')")
        eventually(lambda: office.sql(TAKEN) == [(1,)], 30, "the answer")
    finally:
        shell.kill(shell.pid)
