"""The machine with the data: Postgres and Redis that listen on its addresses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.machines.network import Machine
from tests.faults.rig.killable import KillableServers
from tests.servers import Background
from triggerkit.embedded.account import Account
from triggerkit.embedded.cluster import PORT, USER
from triggerkit.embedded.folders import RELOCATED
from triggerkit.embedded.postgres import DATABASE, EmbeddedPostgres
from triggerkit.embedded.process import Program
from triggerkit.embedded.programs import redis_program
from triggerkit.embedded.redis import EmbeddedRedis

REDIS_PORT = 6379


class _Postgres(EmbeddedPostgres):
    """One that listens on addresses, too, and lets everybody in who comes by them."""

    def __init__(self, folder: Path, addresses: Sequence[str], subnet: str) -> None:
        super().__init__(folder)
        self._folder, self._addresses, self._subnet = folder, addresses, subnet

    async def _initialise(
        self, initdb: Path, home: Path, account: Account | None, lock_fd: int
    ) -> None:
        await super()._initialise(initdb, home, account, lock_fd)
        with (home / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self._subnet} trust\n")

    def _program(self, command: Sequence[str | Path], account: Account | None) -> Program:
        listening: list[str | Path] = []
        if Path(command[0]).name == "postgres":
            listening = ["-c", f"listen_addresses={','.join(self._addresses)}"]
        return super()._program([*command, *listening], account)


class _Redis(EmbeddedRedis):
    """One that listens on an address, too."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder)
        self._address = address

    def _program(self, configuration: Path) -> Program:
        listening = ["--port", str(REDIS_PORT), "--bind", self._address, "--protected-mode", "no"]
        program = super()._program(configuration)
        return replace(program, command=[redis_program(), configuration, *listening])


class DataMachine:
    """Servers of one machine with three addresses: of the source, of the state, and of Redis.

    Source and state are one Postgres: what leads to either is cut by its address.
    """

    def __init__(self, folder: Path, machine: Machine, subnet: str) -> None:
        self._folder = folder
        self.source, self.state, self.transport = machine.addresses[:3]
        background = entered_background(machine)
        self.servers = KillableServers(
            folder,
            _Postgres(folder, [self.source, self.state], subnet),
            _Redis(folder, self.transport),
            background,
        )

    def close(self) -> None:
        """Stop them, and remove the data where they are outside of the folder."""
        self.servers.stop()
        home = (self._folder / "postgres").resolve()
        if home.is_relative_to(RELOCATED):
            shutil.rmtree(home.parent, ignore_errors=True)

    def settings(self) -> dict[str, str]:
        """What leads to them from another machine; tasks write their effects by the last one."""
        source, state = (f"postgresql://{USER}@{at}:{PORT}/{DATABASE}" for at in self.databases)
        # A task's own connection is the task's own care.
        effects = f"{source}?connect_timeout=5&tcp_user_timeout=10000&keepalives_idle=5"
        effects += "&keepalives_interval=2&keepalives_count=2"
        return {
            "DATABASE_URL": source,
            "TRIGGERKIT_STATE_URL": state,
            "REDIS_URL": f"redis://{self.transport}:{REDIS_PORT}/0",
            "EFFECTS_URL": effects,
        }

    @property
    def databases(self) -> tuple[str, str]:
        """The addresses of Postgres: the source's and the state's."""
        return self.source, self.state


def entered_background(machine: Machine) -> Background:
    """An event loop on a machine: what it starts is there."""

    async def enter() -> None:
        machine.enter()

    background = Background()
    background.run(enter())
    return background
