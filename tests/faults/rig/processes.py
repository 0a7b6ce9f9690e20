"""What is put under faults: `dev` with all its processes, or a stream without the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import orjson

from tests.acceptance.project import ROOT, DevProcess, clean_environment, eventually


class FaultyDev(DevProcess):
    """`triggerkit dev` with settings of the test's own in its environment."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self._port = port

    def start_with(self, environment: Mapping[str, str], deadline_s: float = 60) -> None:
        """Start it and wait for its line `ready`."""
        with (self.folder / "dev.stderr").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triggerkit", "dev", "--json", "--port", str(self._port)],
                cwd=self.folder,
                env={**clean_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        eventually(lambda: self._of("ready") or self._ended(), deadline_s, "a line `ready`")
        assert self._of("ready"), self.explain()

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        with suppress(OSError, orjson.JSONDecodeError):
            state = orjson.loads((self.folder / ".triggerkit" / "dev.json").read_bytes())
            return {p["name"]: p["pid"] for p in state["processes"] if p["pid"]}
        return {}

    def explain(self) -> str:
        """What it said that is no news of a run that went well."""
        usual = ("run", "backfill", "check")
        said = [x for x in self.lines if x.get("event") not in usual or x.get("error")]
        shown = "\n".join(str(line)[:400] for line in said[-25:])
        return f"{shown}\n{(self.folder / 'dev.stderr').read_text()}"

    def deaths(self) -> list[dict[str, Any]]:
        """What it said about processes that ended unasked, those that a worker replaced too."""
        replaced = "a process of the worker ended"
        return self._of("died") + [x for x in self.lines if replaced in str(x.get("message"))]


class Stream:
    """A stream without the rest, started again whenever it ends."""

    def __init__(
        self, folder: Path, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._log = folder / "stream.log"
        self._command = [sys.executable, "-m", *command]
        self._environment = {**clean_environment(), **environment}
        self._stop = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self.kill()
        self._thread.join()

    def kill(self) -> None:
        """SIGKILL."""
        if self._running is not None:
            kill(self._running.pid)

    def explain(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-3000:]

    def _keep(self) -> None:
        with self._log.open("ab") as log:
            while not self._stop.is_set():
                self._running = subprocess.Popen(
                    self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
                )
                if self._stop.is_set():
                    self.kill()
                self._running.wait()


def kill(pid: int) -> None:
    """SIGKILL, to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
