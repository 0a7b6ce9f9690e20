"""Both ends of a tunnel are killed, and its line is cut: nothing is lost, order is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.receivers import NodeReceiver, node_receiver
from tests.acceptance.tunnel_rig import BEARER, Office, Process, laptop
from tests.certificates import self_signed
from tests.faults.rig.tls import tls_before
from triggerkit.failpoints import VARIABLE
from triggerkit.signature import new_secret

SIGNING = new_secret()

KEYS = 12


@pytest.fixture
def office(tmp_path: Path, database_url: str, redis_url: str) -> Office:
    folder = tmp_path / "office"
    folder.mkdir()
    made = Office(folder, database_url, redis_url, SIGNING)
    made.sql(f"INSERT INTO posts SELECT i, 0 FROM generate_series(1, {KEYS}) i")
    return made


class Changes:
    """Changes all rows, one version after the other, until it is to end."""

    def __init__(self, office: Office, most: int, pause_s: float) -> None:
        self._office, self._most, self._pause_s = office, most, pause_s
        #: The version that all rows have.
        self.version = 0
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._change)
        self._thread.start()

    def end(self) -> None:
        """Begin no more versions."""
        self._is_ending.set()
        self._thread.join()

    def join(self) -> None:
        """Wait until all versions were made."""
        self._thread.join()

    def _change(self) -> None:
        while self.version < self._most and not self._is_ending.wait(self._pause_s):
            self._office.sql(f"UPDATE posts SET title = '{self.version + 1}'")
            self.version += 1


@contextmanager
def changing(office: Office, most: int, pause_s: float = 0.05) -> Iterator[Changes]:
    """Change all rows meanwhile, `most` versions at most."""
    changes = Changes(office, most, pause_s)
    try:
        yield changes
        changes.join()
    finally:
        changes.end()


def firsts(app: NodeReceiver) -> dict[int, list[int]]:
    """The versions of each row in the order in which they came first."""
    seen: set[str] = set()
    found: dict[int, list[int]] = {}
    for message in app.received:
        key = message["metadata"]["idempotency_key"]
        if key not in seen:
            seen.add(key)
            record = message["record"]
            found.setdefault(record["id"], []).append(int(record["title"]))
    return found


def judge(app: NodeReceiver, versions: int, deadline_s: float = 60) -> None:
    """Nothing is lost, and no row's later version came before an earlier one."""
    expected = {key: list(range(versions + 1)) for key in range(1, KEYS + 1)}
    eventually(
        lambda: all(len(firsts(app).get(key, ())) > versions for key in expected),
        deadline_s,
        lambda: str({key: found[-1] for key, found in firsts(app).items()}),
    )
    assert firsts(app) == expected
    assert app.refused == 0


def where(office: Office, app: NodeReceiver) -> list[str]:
    token = office.token("alice")
    server = f"ws://127.0.0.1:{office.port}"
    return [f"--ports={app.port}:local_endpoint", "--server", server, "--token", f"@{token}"]


@pytest.mark.parametrize(
    ("point", "command"),
    [
        ("tunnel-asked", "stream"),
        ("post-after", "stream"),
        ("delivered-before-cursor", "stream"),
        ("tunnel-taken", "serve"),
        ("tunnel-answered", "serve"),
    ],
)
def test_a_kill_at(office: Office, tmp_path: Path, point: str, command: str) -> None:
    fired = tmp_path / "fired"
    armed = {VARIABLE: f"{point}={fired}"}
    with ExitStack() as stack:
        app = stack.enter_context(node_receiver(BEARER, SIGNING))
        given = {name: armed if name == command else {} for name in ("serve", "stream")}
        processes = {
            name: stack.enter_context(office.process(name, **more)) for name, more in given.items()
        }
        office.until_serving()
        stack.enter_context(laptop(tmp_path / "laptop", *where(office, app)))
        with changing(office, 40):
            eventually(fired.exists, 30, f"a kill at {point}")
            processes[command].again()
        judge(app, 40)
        # What was on its way when it died, and no more.
        assert len(app.received) <= KEYS * 41 + 8 * 10 * 2


def _newest(app: NodeReceiver) -> int:
    """The newest version among the messages that came last."""
    return max((int(m["record"]["title"]) for m in app.received[-50:]), default=-1)


def _kill_each(
    app: NodeReceiver, changes: Changes, victims: Sequence[Process], deadline_s: float
) -> None:
    """Kill one after the other, each once the one before is back.

    It is when a row's version came that was written after its kill: what was on its way then, or
    was read late by this process, does not tell that. A command that is started while no server is
    there ends, as it should.
    """
    _goes_on(app, changes, deadline_s)
    for victim in victims:
        victim.kill()
        victim.again()
        _goes_on(app, changes, deadline_s)
    changes.end()


def _goes_on(app: NodeReceiver, changes: Changes, deadline_s: float) -> None:
    # The next may have been begun before.
    written = changes.version + 1
    eventually(
        lambda: _newest(app) > written,
        deadline_s,
        lambda: f"a version after {written}, of {changes.version}; came: {_newest(app)}",
    )


@pytest.mark.timeout(400)
def test_each_end_is_killed_in_turn(office: Office, tmp_path: Path) -> None:
    with (
        node_receiver(BEARER, SIGNING) as app,
        office.process("serve") as serve,
        office.process("stream") as stream,
    ):
        office.until_serving()
        with laptop(tmp_path / "laptop", *where(office, app)) as tunnel:
            with changing(office, 10_000, pause_s=0.2) as changes:
                _kill_each(app, changes, [tunnel, serve, stream], 60)
            judge(app, changes.version, 90)


def test_a_command_that_is_stopped_for_a_while_goes_on(office: Office, tmp_path: Path) -> None:
    """As a laptop that sleeps: the server gives the tunnel up, and the command opens it anew."""
    with (
        node_receiver(BEARER, SIGNING) as app,
        office.process("serve"),
        office.process("stream"),
    ):
        office.until_serving()
        with laptop(tmp_path / "laptop", *where(office, app)) as tunnel:
            tunnel.wait_for("ready")
            with changing(office, 20) as changes:
                eventually(lambda: _newest(app) > 3, 30, "versions")
                os.kill(tunnel.process.pid, signal.SIGSTOP)
                changes.join()
                time.sleep(16)
                os.kill(tunnel.process.pid, signal.SIGCONT)
            tunnel.wait_for("lost")
            assert tunnel.events("lost")[0]["reason"] == "this machine slept"
            judge(app, 20)


class Namespaces:
    """A network namespace of the laptop's own, joined to this one by a cable that can be cut."""

    def __init__(self) -> None:
        mark = token_hex(3)
        self.name, self._ours, self._theirs = f"tk-{mark}", f"tkh{mark}", f"tkl{mark}"
        octet = int(mark[:2], 16)
        self.office_ip, self._laptop_ip = f"10.231.{octet}.1", f"10.231.{octet}.2"
        self.before = ["ip", "netns", "exec", self.name]

    def make(self) -> None:
        self._ip("netns", "add", self.name)
        self._ip("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs)
        self._ip("link", "set", self._theirs, "netns", self.name)
        self._ip("addr", "add", f"{self.office_ip}/30", "dev", self._ours)
        self._ip("link", "set", self._ours, "up")
        within = ["-n", self.name]
        self._ip(*within, "addr", "add", f"{self._laptop_ip}/30", "dev", self._theirs)
        self._ip(*within, "link", "set", self._theirs, "up")
        self._ip(*within, "link", "set", "lo", "up")

    def remove(self) -> None:
        for words in (["netns", "del", self.name], ["link", "del", self._ours]):
            subprocess.run(["ip", *words], check=False, capture_output=True, timeout=10)

    def cut(self) -> None:
        self._ip("link", "set", self._ours, "down")

    def mend(self) -> None:
        self._ip("link", "set", self._ours, "up")

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    if shutil.which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"may not make network namespaces: {error.stderr.decode().strip()}")
    yield made
    made.remove()


def across(office: Office, folder: Path, namespaces: Namespaces, cut_s: float) -> None:
    """The guide across two networks: TLS between them, either end killed, the line cut."""
    certificate = self_signed(folder, namespaces.office_ip)
    with ExitStack() as stack:
        app = stack.enter_context(node_receiver(BEARER, SIGNING, namespaces.before))
        serve = stack.enter_context(office.process("serve"))
        stream = stack.enter_context(office.process("stream"))
        office.until_serving()
        port = stack.enter_context(tls_before(office.port, namespaces.office_ip, certificate))
        token = office.token("alice")
        command = [
            f"--ports={app.port}:local_endpoint",
            "--server", f"wss://{namespaces.office_ip}:{port}", "--token", f"@{token}",
        ]  # fmt: skip
        stranger = stack.enter_context(
            laptop(folder / "stranger", *command, before=namespaces.before)
        )
        assert stranger.process.wait(30) == 4
        assert any("is not trusted" in line for line in stranger.lines)
        tunnel = stack.enter_context(
            laptop(
                folder / "laptop",
                *command,
                before=namespaces.before,
                SSL_CERT_FILE=str(certificate),
            )
        )
        tunnel.wait_for("ready")
        with changing(office, 10_000, pause_s=0.2) as changes:
            eventually(lambda: _newest(app) > 3, 30, "versions")
            namespaces.cut()
            time.sleep(cut_s)
            namespaces.mend()
            _kill_each(app, changes, [tunnel, serve, stream], 60 + 2 * cut_s)
        judge(app, changes.version, 90 + 2 * cut_s)


def test_across_two_networks(office: Office, tmp_path: Path, namespaces: Namespaces) -> None:
    across(office, tmp_path, namespaces, cut_s=3)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_across_two_networks_with_the_line_cut_for_a_minute(
    office: Office, tmp_path: Path, namespaces: Namespaces
) -> None:
    across(office, tmp_path, namespaces, cut_s=60)
