"""What every embedded server is: one process at a time, started by this one and ending with it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from triggerkit.embedded.process import GuardedProcess
from triggerkit.errors import AlreadyRunning, CannotConnect


class EmbeddedServer:
    """A server whose data live in `<state_dir>/<name>` and whose log in `<state_dir>/log`.

    It ends within 5 s of this process, however that ends. One object starts one server at a time
    and belongs to one event loop.
    """

    NAME: ClassVar[str]

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir.absolute()
        self._log = self._state_dir / "log" / f"{self.NAME.lower()}.log"
        self._server: GuardedProcess | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it is not running."""
        return self._server.pid if self._server is not None and self._server.running else None

    async def stop(self, *, force: bool = False) -> None:
        """Stop with everything written, forced after ten seconds or, with `force`, at once."""
        if self._server is not None:
            await self._server.stop(force=force)

    async def wait(self) -> int:
        """Wait until the server ends, asked to or not; returns its exit code.

        Raises:
            CannotConnect: not started yet.
        """
        if self._server is None:
            raise self._not_started()
        return await self._server.wait()

    def _require_stopped(self) -> None:
        if self.pid is not None:
            raise AlreadyRunning(f"this embedded {self.NAME} was already started")

    def _not_started(self) -> CannotConnect:
        return CannotConnect(f"the embedded {self.NAME} has not been started")
