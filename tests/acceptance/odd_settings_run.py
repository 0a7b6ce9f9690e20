"""Run commands of many cases, each in a fork of a process that has imported them all.

Reads the cases as JSON from standard input and writes what each printed to standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import orjson

from triggerkit.cli import main

#: Seconds a command may take.
LIMIT_S = 60.0

#: How many run at a time.
AT_ONCE = 4

_LOCAL = ("127.", "::1", "localhost", "/")


def _only_here(host: Any, *rest: Any, **options: Any) -> Any:
    """A password that became a host's name is not asked for outside of this machine."""
    if host and not str(host).startswith(_LOCAL):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _resolve(host, *rest, **options)


_resolve = socket.getaddrinfo


def _run(case: dict[str, Any], folder: Path, output: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(_closed_pipe() if case.get("cut") == "pipe" else output, 1)
    os.dup2(output, 2)
    os.setsid()
    os.chdir(folder)
    signal.alarm(int(LIMIT_S))
    settings = case["settings"]
    if case["in_file"]:
        # As people write it; a value with quotes of both kinds is not for such a file.
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (folder / ".env").write_text("".join(lines))
    else:
        os.environ.update(settings)
    socket.getaddrinfo = _only_here
    sys.argv = ["triggerkit", *case["arguments"]]
    main.run()


def _closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _start_interrupted(case: dict[str, Any], folder: Path) -> tuple[int, Any]:
    """Start a command whose server never answers, and interrupt it once it waits for that."""
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"postgresql://shop:hunter2@127.0.0.1:{silent.getsockname()[1]}/shop"
    settings = {k: url if v == "{silent}" else v for k, v in case["settings"].items()}
    pid, output = _start({**case, "settings": settings}, folder)

    def interrupt() -> None:
        silent.settimeout(LIMIT_S)
        with contextlib.suppress(OSError):
            connection, _ = silent.accept()
            with connection, silent:
                connection.recv(1)
                os.kill(pid, signal.SIGINT)
                # Open until the command has ended it.
                while connection.recv(4096):
                    continue

    threading.Thread(target=interrupt, daemon=True).start()
    return pid, output


def _start(case: dict[str, Any], folder: Path) -> tuple[int, Any]:
    output = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - read when the fork has ended
    pid = os.fork()
    if pid:
        return pid, output
    code = 0
    try:
        _run(case, folder, output.fileno())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _file(endpoint: str) -> str:
    # JSON's strings are TOML's, too.
    table = f"[endpoints.shop]\nurl = {json.dumps(endpoint)}\n" if endpoint else ""
    return f'tasks = ["tasks"]\n{table}'


def run_all(cases: list[dict[str, Any]], project: Path) -> list[dict[str, Any]]:
    """Run the cases in copies of `project`; what each said, and its code."""
    answers: list[dict[str, Any]] = [{} for _ in cases]
    running: dict[int, tuple[int, Any, float]] = {}
    for number, case in enumerate(cases):
        while len(running) >= AT_ONCE:
            _end_one(running, answers)
        folder = project / f"case-{number}"
        folder.mkdir()
        (folder / "triggerkit.toml").write_text(_file(case["endpoint"]))
        (folder / "tasks.py").write_text((project / "tasks.py").read_text())
        start = _start_interrupted if case.get("cut") == "interrupt" else _start
        pid, output = start(case, folder)
        running[pid] = (number, output, time.monotonic())
    while running:
        _end_one(running, answers)
    return answers


def _end_one(running: dict[int, tuple[int, Any, float]], answers: list[dict[str, Any]]) -> None:
    pid, status = os.waitpid(-1, 0)
    number, output, since = running.pop(pid)
    output.seek(0)
    answers[number] = {
        "code": os.waitstatus_to_exitcode(status),
        "said": output.read().decode(errors="backslashreplace"),
        "seconds": time.monotonic() - since,
    }
    output.close()


if __name__ == "__main__":
    # All commands are imported once, here.
    main.application()
    given = orjson.loads(sys.stdin.buffer.read())
    answered = run_all(given["cases"], Path(given["project"]))
    sys.stdout.buffer.write(orjson.dumps(answered))
