"""The fork server of `dev`: imports once what its processes need, and forks them.

Starting a process is mostly importing; a fork has imported already. Nothing of the project is
imported here, so that a forked process loads the project's code as it is now. Only where Linux
is: elsewhere the libraries of the system do not bear a fork without exec.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

#: What is imported ahead; `openai` because it takes longer than all the others together.
MODULES = (
    "triggerkit.cli.processes.serve",
    "triggerkit.cli.processes.worker",
    "triggerkit.cli.processes.stream",
    "triggerkit.cli.project.project",
    "openai",
)

#: Largest request, in bytes.
MAX_REQUEST_BYTES = 1024 * 1024

#: Most descriptors in one request.
MAX_FDS = 16

#: Where the descriptors of a request are put before each gets its own number.
_ABOVE = 256


class Request(NamedTuple):
    """A command to become: `triggerkit ARGUMENTS` in `folder`, with `fds` open under their numbers.

    Its answer is `{"pid": …}`, and once the process has ended `{"ended": pid, "code": …}`.
    """

    arguments: Sequence[str]
    folder: str
    environment: dict[str, str]
    fds: Sequence[int]


def main() -> None:
    """`forkserver FD`: serve the socket `FD` until its other end is closed."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for name in MODULES:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()
    forked = _serve(connection)
    if forked is not None:
        _become(*forked)
        import_module("triggerkit.cli.main").run()


def _serve(connection: socket.socket) -> tuple[Request, list[int]] | None:
    """Fork for each request; returns it, with its descriptors, in the forked process only."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # A handler, since what is ignored wakes nobody.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                os.read(woken, 4096)
                _tell_ended(connection)
            if connection not in ready:
                continue
            received, fds, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, MAX_FDS)
            if not received:
                return None
            pid = os.fork()
            if pid == 0:
                break
            for fd in fds:
                os.close(fd)
            _send(connection, {"pid": pid})
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in (woken, wake):
        os.close(fd)
    connection.close()
    return Request(**json.loads(received)), fds


def _tell_ended(connection: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _send(connection, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(json.dumps(answer).encode())


def _become(request: Request, received: Sequence[int]) -> None:
    """Make this process the one that was asked for, as if it had been started so."""
    os.setsid()
    # First out of the way: a descriptor may have come under the number another one is to have.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in received]
    for fd in received:
        os.close(fd)
    for fd, number in zip(moved, request.fds, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.dup2(1, 2)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = ["triggerkit", *request.arguments]


if __name__ == "__main__":
    main()
