"""One process of a child: how it is started, and ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triggerkit.lifeline import Lifeline
from triggerkit.settings import Settings
from triggerkit.supervisor.dev.forks import ForkServer, Process
from triggerkit.supervisor.logs import FORMAT_VARIABLE

#: Longest line of a child's log, in bytes.
MAX_LINE_BYTES = 4 * 1024 * 1024


#: What no proxy is asked for: the servers that `dev` brings are on this machine.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: What is pushed to while one develops: receivers of one's own, beside the routes of `serve`.
LOOPBACK_NETWORKS = "127.0.0.0/8,::1/128"


def child_environment(outer: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: `own` over `outer`, of which an empty setting is none."""
    settings = {name.upper() for name in Settings.model_fields}
    kept = {name: v for name, v in outer.items() if v or name not in settings}
    direct = outer.get("NO_PROXY") or outer.get("no_proxy") or ""
    listed = [part.strip() for part in direct.split(",") if part.strip()]
    hosts = ",".join(dict.fromkeys([*listed, *LOOPBACK]))
    return {**kept, **own, "NO_PROXY": hosts, "no_proxy": hosts}


@dataclass(frozen=True, slots=True)
class Command:
    """The command of a process of `dev`: `python -m MODULE ARGUMENTS`.

    One that does not announce itself is ready at once. `forks` forks the module `triggerkit`.
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    lifeline: Lifeline
    pass_fds: Sequence[int] = ()
    announces: bool = True
    forks: ForkServer | None = None
    module: str = "triggerkit"
    logs_json: bool = True

    async def start(self) -> Process:
        """Start it, in a session of its own: a Ctrl-C is for `dev`, which drains in order."""
        environment = {
            **self.environment,
            **self.lifeline.environment(),
            "PYTHONUNBUFFERED": "1",
            **({FORMAT_VARIABLE: "json"} if self.logs_json else {}),
        }
        fds = (self.lifeline.read_fd, *self.pass_fds)
        if self.forks is not None and self.forks.is_alive and self.module == "triggerkit":
            with contextlib.suppress(ConnectionError):
                return await self.forks.fork(
                    self.arguments, self.folder, environment, fds, MAX_LINE_BYTES
                )
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            *self.arguments,
            cwd=self.folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=fds,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )


@dataclass(slots=True)
class Instance:
    """One process of a child, from its start to its end."""

    process: Process
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: bool = False

    async def is_ready(self) -> bool:
        """Wait until it is ready; False when it ended before."""
        ready = asyncio.create_task(self.ready.wait())
        ended = asyncio.create_task(self.ended.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        return self.ready.is_set() and not self.ended.is_set()

    def ask_to_end(self) -> None:
        """Send SIGTERM, once: a second one would force the process to leave its work."""
        if not self._asked and self.process.returncode is None:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and what it started; the number stays taken while any of it is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
