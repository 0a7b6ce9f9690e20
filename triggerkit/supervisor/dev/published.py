"""The state file of a running `dev`, by which other commands in the folder find it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any

from triggerkit.settings import Settings
from triggerkit.supervisor.dev.child import CommandProcess
from triggerkit.supervisor.dev.folder import StateFolder
from triggerkit.supervisor.dev.servers import EmbeddedServers

#: Seconds between two looks whether processes came or went.
LOOK_S = 0.25


class PublishedState:
    """The content of the file: where `dev` serves, its settings and its processes."""

    def __init__(
        self,
        folder: StateFolder,
        servers: EmbeddedServers,
        children: Mapping[str, CommandProcess],
        stop: asyncio.Event,
    ) -> None:
        """Until `stop` is set, `dev` is ready."""
        self._folder = folder
        self._servers = servers
        self._children = children
        self._stop = stop

    async def keep(self, settings: Settings) -> None:
        """Keep the file true while processes come and go, until canceled."""
        before: object = None
        while True:
            now = self._processes()
            if now != before:
                # What cannot be written now may be at the next look.
                with contextlib.suppress(OSError):
                    self.write(settings)
                    before = now
            await asyncio.sleep(LOOK_S)

    def write(self, settings: Settings) -> None:
        """Write the file."""
        self._folder.write_state(
            {
                "pid": os.getpid(),
                "ready": not self._stop.is_set(),
                "url": settings.public_url,
                "state_dir": str(self._folder.path),
                "processes": self._processes(),
                "env": settings.environment(),
            }
        )

    def _processes(self) -> list[dict[str, Any]]:
        ours = [{"name": c.name, "pid": c.pid, "state": c.state} for c in self._children.values()]
        return self._servers.processes() + ours
