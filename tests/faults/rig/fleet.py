"""Several processes of each kind, as production has them: killed and started again, or rolled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.project import eventually
from tests.command_process import CommandProcess
from tests.faults.rig.balancer import Balancer
from tests.ports import free_port

#: How many of each kind there are.
COUNTS = {"serve": 2, "stream": 2, "worker": 3}

COMMANDS = {
    "serve": ["triggerkit", "serve"],
    "stream": ["triggerkit", "stream"],
    "worker": ["triggerkit", "worker"],
}


class Fleet:
    """The processes by kind and place; each has a successor of the same kind and place."""

    def __init__(self, folder: Path, settings: Mapping[str, str], balancer: Balancer) -> None:
        self._folder = folder
        self._settings = settings
        self._balancer = balancer
        self._running: dict[tuple[str, int], tuple[CommandProcess, int]] = {}
        self._count = 0

    @property
    def places(self) -> list[tuple[str, int]]:
        """All that there are to be."""
        return [(kind, number) for kind, count in COUNTS.items() for number in range(count)]

    def start(self, place: tuple[str, int]) -> None:
        """Start one, and do not wait for it."""
        self._running[place] = self._started(place[0])

    def until_ready(self, place: tuple[str, int]) -> None:
        """Wait until it takes work, and gets some."""
        process, port = self._running[place]
        self._until_ready(place[0], process, port)

    def kill(self, place: tuple[str, int]) -> None:
        """SIGKILL, and another one started at once, as a supervisor does."""
        process, port = self._running[place]
        process.kill()
        self._balancer.remove(port)
        self.start(place)

    def roll(self, place: tuple[str, int]) -> None:
        """Start another one first; once that takes work, ask the old one to end."""
        old, old_port = self._running[place]
        new, new_port = self._started(place[0])
        self._running[place] = new, new_port
        self._until_ready(place[0], new, new_port)
        old.terminate()
        assert old.wait(60) == 0, old.said()[-3000:]
        self._balancer.remove(old_port)

    def close(self) -> None:
        """End all."""
        for process, _ in self._running.values():
            process.kill()

    def said(self) -> str:
        """The end of what each said."""
        return "\n".join(
            f"--- {process.name}\n{process.said()[-800:]}" for process, _ in self._running.values()
        )

    def _started(self, kind: str) -> tuple[CommandProcess, int]:
        self._count += 1
        port = free_port()
        own = {"TRIGGERKIT_PORT": str(port)} if kind == "serve" else {}
        process = CommandProcess(
            self._folder,
            f"{kind}-{self._count}",
            COMMANDS[kind],
            {**self._settings, **own},
            None if kind == "serve" else port,
        )
        if kind == "serve":
            self._balancer.add(port)
        return process, port

    def _until_ready(self, kind: str, process: CommandProcess, port: int) -> None:
        process.until_ready(60, port)
        if kind == "serve":
            eventually(lambda: self._balancer.is_ready(port), 20, "the balancer sends to it")
