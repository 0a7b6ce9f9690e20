"""Nothing that was started remains 5 s after the death of whoever started it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from triggerkit import lifeline
from triggerkit.embedded import guard
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis

GONE_WITHIN_S = 5.0

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc or prctl")

#: Watches its lifeline and tells whether it has one.
WATCHER = """
import time
from triggerkit import lifeline
print(lifeline.watch(), flush=True)
time.sleep(600)
"""

#: Starts both servers and a watcher, then waits to be killed.
PARENT = """
import asyncio, subprocess, sys
from pathlib import Path
from triggerkit import lifeline
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis

async def main():
    postgres, redis = EmbeddedPostgres(Path(sys.argv[1])), EmbeddedRedis(Path(sys.argv[1]))
    await asyncio.gather(postgres.start(), redis.start())
    held = lifeline.hold()
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], pass_fds=[held.read_fd],
                             env=held.environment(), stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"True\\n"
    print(f'{{"postgres": {postgres.pid}, "redis": {redis.pid}, "child": {child.pid}}}', flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Guarded:
    """A guard started by hand, and this side of its lifeline."""

    def __init__(self, *command: str, stop: int = signal.SIGTERM, patience_s: float = 10) -> None:
        self.lifeline = lifeline.hold()
        options = {
            "lifeline": self.lifeline.read_fd,
            "stop": int(stop),
            "force": int(signal.SIGINT),
            "patience-s": patience_s,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-IS", guard.__file__, *arguments, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self.lifeline.read_fd],
            text=True,
        )
        assert self.process.stdout is not None
        self.pid = int(self.process.stdout.readline())

    def output_line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def close(self) -> None:
        self.lifeline.close()
        self.process.communicate()


def shell(script: str, **options: float) -> Guarded:
    return Guarded("/bin/sh", "-c", script, **options)  # type: ignore[arg-type]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be reaped, as in a container without init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def seconds_until_gone(pids: set[int], within_s: float = GONE_WITHIN_S) -> float:
    start = time.monotonic()
    while left := {pid for pid in pids if exists(pid)}:
        passed_s = time.monotonic() - start
        assert passed_s < within_s, f"{left} of {pids} still run after {passed_s:.1f} s"
        time.sleep(0.01)
    return time.monotonic() - start


def descendants(ancestor: int) -> set[int]:
    """All processes below one; empty where there is no /proc."""
    found: set[int] = set()
    for folder in Path(f"/proc/{ancestor}/task").glob("*"):
        for child in map(int, (folder / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ".triggerkit"
    yield folder
    if (folder / "postgres").is_symlink():
        shutil.rmtree((folder / "postgres").resolve().parent)


@pytest.fixture
def parent(state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(state_dir), WATCHER], stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def test_a_killed_parent_leaves_no_process_within_5_s(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    pids = set(json.loads(parent.stdout.readline()).values()) | descendants(parent.pid)
    parent.kill()
    print(f"{len(pids)} processes gone after {seconds_until_gone(pids):.2f} s")


def test_servers_start_at_once_after_their_parent_was_killed(
    parent: subprocess.Popen[str], state_dir: Path
) -> None:
    assert parent.stdout is not None
    parent.stdout.readline()
    parent.kill()

    async def start_again() -> None:
        postgres, redis = EmbeddedPostgres(state_dir), EmbeddedRedis(state_dir)
        await asyncio.gather(postgres.start(), redis.start())
        await asyncio.gather(postgres.stop(), redis.stop())

    asyncio.run(start_again())


def test_a_parent_killed_during_the_first_start_leaves_data_that_start(
    parent: subprocess.Popen[str], state_dir: Path
) -> None:
    log = state_dir / "log" / "postgres.log"
    while not (log.exists() and "creating configuration files" in log.read_text()):
        time.sleep(0.01)
    pids = descendants(parent.pid)
    parent.kill()
    seconds_until_gone(pids)

    async def start_again() -> None:
        postgres = EmbeddedPostgres(state_dir)
        await postgres.start()
        await postgres.stop()

    asyncio.run(start_again())


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + signal.SIGKILL)]
)
def test_the_exit_code_is_the_servers(script: str, code: int) -> None:
    guarded = shell(script)
    assert guarded.process.wait() == code
    guarded.close()


def test_a_missing_program_is_named() -> None:
    guarded = Guarded("/nonexistent/server")
    assert "/nonexistent/server" in guarded.output_line()
    assert guarded.process.wait() == guard.NOT_EXECUTABLE
    guarded.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_guard_becomes_the_servers_stop_signal(signum: signal.Signals) -> None:
    guarded = shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    assert guarded.output_line() == "ready"
    guarded.process.send_signal(signum)
    assert guarded.process.wait() == 3
    guarded.close()


def test_sigquit_to_the_guard_forces_the_server() -> None:
    guarded = shell("trap '' TERM; trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done")
    assert guarded.output_line() == "ready"
    guarded.process.send_signal(signal.SIGQUIT)
    assert guarded.process.wait() == 4
    guarded.close()


def test_patience_ends_by_the_force_signal() -> None:
    guarded = shell(
        "trap '' TERM; trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done",
        patience_s=0.05,
    )
    assert guarded.output_line() == "ready"
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.process.wait() == 4
    guarded.close()


def test_a_server_that_ignores_every_signal_is_gone_5_s_after_the_parents_death() -> None:
    guarded = shell("trap '' TERM INT QUIT; echo ready; while :; do sleep 0.01; done")
    assert guarded.output_line() == "ready"
    guarded.lifeline.close()
    took_s = seconds_until_gone({guarded.pid, guarded.process.pid} - {0})
    print(f"gone after {took_s:.2f} s")
    assert guarded.process.wait() == 128 + signal.SIGKILL
    guarded.close()


@linux_only
def test_what_a_server_leaves_behind_is_ended_even_in_another_session() -> None:
    guarded = shell("sleep 600 & echo $!; setsid sleep 600 & echo $!; kill -KILL $$")
    pids = [int(guarded.output_line()) for _ in range(2)]
    assert guarded.process.wait() == 128 + signal.SIGKILL
    assert not any(map(exists, pids))
    guarded.close()


@linux_only
def test_the_server_inherits_no_end_of_the_lifeline() -> None:
    guarded = shell("ls -l /proc/self/fd; echo end")
    lines = list(iter(guarded.output_line, "end"))
    inode = os.fstat(guarded.lifeline.read_fd).st_ino
    assert len(lines) >= 3
    assert not [line for line in lines if f"pipe:[{inode}]" in line]
    guarded.process.wait()
    guarded.close()


@linux_only
def test_the_server_is_stopped_when_its_guard_is_killed() -> None:
    guarded = shell("exec sleep 600")
    wait_for_program(guarded.pid, "sleep")
    guarded.process.kill()
    seconds_until_gone({guarded.pid})
    guarded.close()


def wait_for_program(pid: int, name: str) -> None:
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_watching_child_exits_by_70_when_the_lifeline_ends() -> None:
    held = lifeline.hold()
    child = start_watcher(held.environment(), [held.read_fd])
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    assert child.poll() is None
    held.close()
    assert child.wait(GONE_WITHIN_S) == lifeline.PARENT_GONE
    child.stdout.close()


def test_a_descriptor_that_is_not_the_lifeline_is_left_alone() -> None:
    held, other = lifeline.hold(), lifeline.hold()
    environment = {lifeline.VARIABLE: f"{other.read_fd}:{os.fstat(held.read_fd).st_ino}"}
    child = start_watcher(environment, [other.read_fd])
    assert child.stdout is not None
    assert child.stdout.readline() == "False\n"
    child.kill()
    child.communicate()
    held.close()
    other.close()


@pytest.mark.parametrize("value", ["", "3", "x:y", "999:1"])
def test_without_a_lifeline_there_is_nothing_to_watch(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lifeline.VARIABLE, value)
    assert not lifeline.watch()


def start_watcher(environment: dict[str, str], fds: list[int]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WATCHER],
        env=environment,
        pass_fds=fds,
        stdout=subprocess.PIPE,
        text=True,
    )
