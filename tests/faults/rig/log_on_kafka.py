"""A process of a log on Kafka: `stream`, or `deliver`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from triggerkit import failpoints


class LogProcess:
    """A real process of the log, killed and started again."""

    def __init__(self, kind: str, folder: Path, environment: dict[str, str], name: str) -> None:
        self._kind, self._folder, self._environment = kind, folder, environment
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, fail_point: str = "") -> None:
        """Start it; with a fail point it kills itself there, once."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "triggerkit", self._kind, cwd=self._folder,
                env={**self._environment, failpoints.VARIABLE: fail_point},
                stdout=log, stderr=log,
            )  # fmt: skip

    async def ended(self, timeout_s: float) -> None:
        """Wait until its fail point killed it."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            await self._process.wait()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def start_again(self, fail_point: str, fired: Path, timeout_s: float = 60.0) -> None:
        """Kill it, have it kill itself at a fail point, and start it once more."""
        await self.kill()
        await self.start(f"{fail_point}={fired}")
        await self.ended(timeout_s)
        await self.start()

    async def pause(self) -> None:
        """Stop it where it is, as a machine does that is suspended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def resume(self) -> None:
        """Let it go on, as if no time had passed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
