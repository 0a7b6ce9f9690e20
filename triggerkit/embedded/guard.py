"""Runs one server in the foreground and ends it when the process that wanted it is gone.

A program of its own, of the standard library alone, so that it starts within milliseconds:

    python -IS guard.py --lifeline=FD --stop=SIGNUM --force=SIGNUM --patience-s=N
                        [--uid=N --gid=N] -- PROGRAM [ARGUMENT ...]

The process id of the server is its only output. SIGTERM and SIGINT stop the server: `--stop` is
sent, after the patience `--force`, a second later SIGKILL; SIGQUIT skips to `--force`. The end of
file on the lifeline, a pipe whose write end only the parent holds, does the same with a patience
of two seconds. The exit code is the server's (128 + the number when a signal ended it).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import NoReturn

if sys.platform == "linux":
    import ctypes

#: How long a server whose parent died may take to stop by itself, in seconds.
ORPHANED_PATIENCE_S = 2.0
#: How long it may take after `--force` until SIGKILL, in seconds.
FORCE_PATIENCE_S = 1.0
#: How long processes the server left behind may take to end by themselves, in seconds.
LEFT_BEHIND_PATIENCE_S = 0.5
#: The exit code when the program cannot be executed, as in a shell.
NOT_EXECUTABLE = 127

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Stopping:
    """The three steps down, each with its patience: `--stop`, `--force`, SIGKILL."""

    def __init__(self, child: int, stop: int, force: int) -> None:
        self._child = child
        self._steps = [stop, force, signal.SIGKILL]
        self._force = force
        self._deadline: float | None = None

    def begin(self, patience_s: float) -> None:
        """Take the first step, or shorten the patience when it was taken before."""
        deadline = time.monotonic() + patience_s
        if self._deadline is None:
            self._send(self._steps.pop(0))
            self._deadline = deadline
        else:
            self._deadline = min(self._deadline, deadline)

    def escalate(self) -> None:
        """Take the next step; SIGKILL is the last."""
        if self._steps:
            self._send(self._steps.pop(0))
        self._deadline = time.monotonic() + FORCE_PATIENCE_S

    def force(self) -> None:
        """Skip the gentle step."""
        if self._deadline is None:
            self._steps.pop(0)
        if self._force in self._steps:
            self.escalate()

    def remaining_ms(self) -> float | None:
        """Milliseconds until the next step, None before the first."""
        if self._deadline is None:
            return None
        return max(0.0, 1000 * (self._deadline - time.monotonic()))

    def _send(self, signum: int) -> None:
        os.kill(self._child, signum)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process; does nothing outside Linux."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(*(ctypes.c_ulong(number) for number in (option, value, 0, 0, 0)))


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _execute(command: list[str], options: dict[str, str], guard: int) -> NoReturn:
    """In the child: become the server. Its output goes where the guard's errors go."""
    try:
        os.setsid()
        os.umask(0o077)
        os.dup2(2, 1)
        if "uid" in options:
            _become(int(options["uid"]), int(options["gid"]))
        # A change of user clears this setting, so it comes after. It stands in for the lifeline
        # when the guard itself is killed.
        _prctl(_PR_SET_PDEATHSIG, int(options["stop"]))
        if os.getppid() != guard:
            os._exit(NOT_EXECUTABLE)
        for signum in (*_HANDLED, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.execv(command[0], command)  # noqa: S606
    except BaseException as error:
        os.write(2, f"cannot execute {command[0]}: {error}\n".encode())
    os._exit(NOT_EXECUTABLE)


def _wake_on_signals() -> int:
    """Make each handled signal a byte in a pipe and return its read end."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for signum in _HANDLED:
        signal.signal(signum, lambda *_: None)
    return read_fd


def _exit_status(child: int) -> int | None:
    """Return the child's exit code, negative for a signal, or None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid == child else None


def _guard(child: int, wake: int, lifeline: int, stopping: Stopping, patience_s: float) -> int:
    """Wait for the child's end, passing on the wish to stop; returns its exit status."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll(stopping.remaining_ms())]
        received = os.read(wake, 256) if wake in ready else b""
        if (status := _exit_status(child)) is not None:
            return status
        if signal.SIGQUIT in received:
            stopping.force()
        elif signal.SIGTERM in received or signal.SIGINT in received:
            stopping.begin(patience_s)
        if lifeline in ready:
            poll.unregister(lifeline)
            stopping.begin(ORPHANED_PATIENCE_S)
        if not ready:
            stopping.escalate()


def _left_behind() -> list[int]:
    """Processes that became children of the guard because their own parent ended."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []


def _end_left_behind(child: int, wake: int) -> None:
    """Wait for what the server left behind, then kill it.

    A killed Postgres leaves backends that end by themselves, but not in the middle of a
    computation; a killed Redis leaves its rewrite of the log, in the server's process group.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    deadline = time.monotonic() + LEFT_BEHIND_PATIENCE_S
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline + LEFT_BEHIND_PATIENCE_S:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
            if time.monotonic() > deadline:
                for pid in _left_behind():
                    os.kill(pid, signal.SIGKILL)
            if poll.poll(50):
                os.read(wake, 256)


def main(arguments: list[str]) -> int:
    """Run the server; see the module's description for the arguments."""
    split = arguments.index("--")
    command = arguments[split + 1 :]
    options = dict(argument[2:].split("=", 1) for argument in arguments[:split])
    lifeline = int(options["lifeline"])
    os.set_inheritable(lifeline, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        _execute(command, options, guard)
    wake = _wake_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % child)
    os.dup2(2, 1)
    stopping = Stopping(child, int(options["stop"]), int(options["force"]))
    status = _guard(child, wake, lifeline, stopping, float(options["patience-s"]))
    _end_left_behind(child, wake)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
