"""Running Python programs as a user starts them, and looking at them from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

#: Variables of this machine that would change what a measured program does.
FOREIGN = (
    "TRIGGERKIT_",
    "DATABASE_URL",
    "REDIS_URL",
    "KAFKA_",
    "OPENAI_",
    "EMBEDDING_",
    "PG",
    "PYTHON",
)

#: What a program prints, alone or in a sentence, once it works.
READY = re.compile(rb"\bready\b")

#: Seconds any program may take to get ready, and to end when asked to.
START_S = 120.0
STOP_S = 30.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with no settings but `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, **settings}


def wait_until(look: Callable[[], bool], deadline_s: float, what: str, pause_s: float) -> None:
    """Look every `pause_s` until `look` answers True.

    Raises:
        TimeoutError: it did not within `deadline_s`.
    """
    until = time.monotonic() + deadline_s
    while not look():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        time.sleep(pause_s)


def run_to_end(folder: Path, arguments: Sequence[str], settings: Mapping[str, str]) -> str:
    """Run `python -m ARGUMENTS` in `folder` and return what it printed.

    Raises:
        RuntimeError: it failed; the message ends with its output.
    """
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} {arguments[1]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Program:
    """`python -m ARGUMENTS` in a folder, from entering the context to leaving it.

    Entering waits until it says that it is ready; `started_s` is how long that took. What it
    prints goes to a file, so that reading it costs nothing while something is measured.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._arguments = list(arguments)
        self._settings = settings
        self._log = folder / f"{arguments[min(1, len(arguments) - 1)].partition(':')[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0

    def __enter__(self) -> Self:
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                cwd=self._folder,
                env={**environment(self._settings), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, START_S, f"{self._arguments} ready", 0.002)
        except TimeoutError as error:
            self.stop()
            raise TimeoutError(f"{error}; it says:\n{self._log.read_text()}") from None
        except BaseException:
            self.stop()
            raise
        self.started_s = time.monotonic() - started
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it as Ctrl-C does, or by force when it takes too long."""
        assert self._process is not None
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill it as the kernel does, without a word; its own children are its own matter."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def printed(self) -> str:
        """What it has printed until now."""
        return self._log.read_text()

    def peak_memory_mb(self) -> float:
        """The most physical memory it ever held, in MB (10⁶ bytes), as the kernel counted it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found.group(1)) * 1024 / 1e6

    def cpu_s(self) -> float:
        """The processor time it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _is_ready(self) -> bool:
        assert self._process is not None
        printed = self._log.read_bytes()
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._arguments} ended at once:\n{printed.decode()}")
        return READY.search(printed) is not None
