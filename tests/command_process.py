"""A command of triggerkit as a process of a test: what it says, how it answers probes, its end."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson
import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually


class CommandProcess:
    """`triggerkit ARGUMENTS`, or another command line, not started again when it ends."""

    def __init__(
        self,
        folder: Path,
        name: str,
        command: list[str],
        settings: Mapping[str, str],
        health_port: int | None = None,
    ) -> None:
        self.name = name
        self.health_port = health_port
        self._log = folder / f"{name}.log"
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if health_port is not None:
            own["TRIGGERKIT_HEALTH_PORT"] = str(health_port)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env={**clean_environment(), **own, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def said(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    def until_said(self, text: str, timeout_s: float = 30) -> None:
        """Wait until it has printed `text`."""
        try:
            eventually(lambda: text in self.said(), timeout_s, text)
        except AssertionError:
            pytest.fail(f"{self.name} did not say {text!r}, but:\n{self.said()[-3000:]}")

    def probe(self, path: str, port: int | None = None) -> tuple[int, Any]:
        """The status and the content of an answer to a probe; 0 where there is none."""
        port = port or self.health_port
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            is_json = "json" in answer.getheader("content-type", "")
            return answer.status, orjson.loads(content) if is_json else content
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    def until_ready(self, timeout_s: float = 30, port: int | None = None) -> Any:
        """Wait until it says at its probe that it takes work; what it says."""
        eventually(
            lambda: self.probe("/readyz", port)[0] == 200,
            timeout_s,
            lambda: f"{self.name} is ready, but: {self.said()[-3000:]}",
        )
        return self.probe("/readyz", port)[1]

    def terminate(self) -> None:
        """SIGTERM, to it alone."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end, but said:\n{self.said()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL to it; its children end with it."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
