"""A command on a terminal of its own, as a person sees it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.project import clean_environment, eventually

#: What colours text and moves the cursor.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs `python -m ARGUMENTS` on a pseudo-terminal until `interrupt` or `close`."""

    def __init__(self, folder: Path, *arguments: str, settings: Mapping[str, str]) -> None:
        ours, theirs = pty.openpty()
        self._shown = bytearray()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env={**clean_environment(), "TERM": "xterm-256color", **settings},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._keyboard = os.dup(ours)
        self._reader = threading.Thread(target=self._read, args=[ours], daemon=True)
        self._reader.start()

    @property
    def shown(self) -> str:
        """All that was written to the terminal."""
        return self._shown.decode(errors="replace")

    def wait_for(self, text: str, deadline_s: float = 30) -> None:
        """Wait until `text` was shown, in whatever colours."""
        eventually(
            lambda: text in _ESCAPE.sub("", self.shown), deadline_s, f"{text!r} on the terminal"
        )

    def type(self, text: str) -> None:
        """Type, as a person does."""
        os.write(self._keyboard, text.encode())

    def interrupt(self) -> int:
        """Ctrl-C, and its end; the exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        code = self._process.wait(20)
        self._reader.join(5)
        return code

    def wait(self, deadline_s: float = 30) -> int:
        """Wait for its end; the exit code."""
        code = self._process.wait(deadline_s)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """Make sure that it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def _read(self, terminal: int) -> None:
        # At the end of the last writer Linux answers with an error instead of an end of file.
        with os.fdopen(terminal, "rb", buffering=0) as output:
            try:
                while part := output.read(65536):
                    self._shown += part
            except OSError:
                return
