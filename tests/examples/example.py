"""An example in a folder of its own, while its `dev` runs on the test's servers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg

from tests.acceptance.processes import family
from tests.acceptance.project import ROOT, DevProcess, clean_environment, eventually
from triggerkit.settings import Settings

EXAMPLES = ROOT / "examples"

#: Commands of a README that the test does not type: `dev` is started by the test itself.
STARTED = ("pip ", "triggerkit dev", "python -m aiosmtpd")

DEADLINE_S = 30.0


def readme_commands(name: str) -> list[str]:
    """Each command of the example's README, in order, but those that start something."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (EXAMPLES / name / "README.md").read_text(), re.S | re.M
    )
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith(STARTED)]


class Example:
    """A copy of an example, with `.env` as its README says."""

    def __init__(
        self, name: str, folder: Path, settings: Settings, given: Mapping[str, str]
    ) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self._dsn = settings.source_dsn
        environment = settings.environment()
        servers = {key: environment[key] for key in ("DATABASE_URL", "REDIS_URL")}
        lines = [f"{key}='{value}'\n" for key, value in {**servers, **given}.items()]
        (self.folder / ".env").write_text("".join(lines))
        self._environment = {**clean_environment(), **servers, **given}
        self._commands = iter(readme_commands(name))
        self.dev = DevProcess(self.folder)
        self.type("python schema.py")

    def type_next(self) -> str:
        """Type the next command of the README; what it prints."""
        return self.type(next(self._commands))

    def type(self, command: str) -> str:
        """Type a command into a terminal in which the environment is active."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**self._environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def is_typed(self) -> bool:
        """Whether every command of the README was typed."""
        return next(self._commands, None) is None

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a SELECT in the source."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def until(self, look: Callable[[], object], what: str) -> None:
        """Wait until `look` answers something true."""
        try:
            eventually(look, DEADLINE_S, what)
        except AssertionError as error:
            error.add_note(self.dev.explain())
            raise

    def until_runs_ended(self, count: int) -> None:
        """Wait until `count` runs were accepted, and all of them completed."""
        statement = "SELECT status, count(*) FROM triggerkit.runs GROUP BY status"
        self.until(lambda: self.query(statement) == [("completed", count)], f"{count} runs")

    def kill_workers(self) -> None:
        """End every process of the workers by SIGKILL; `dev` starts them anew."""
        [worker] = [p["pid"] for p in self._status()["processes"] if p["name"] == "worker"]
        for pid in family(worker):
            os.kill(pid, signal.SIGKILL)

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = orjson.loads(self.type("triggerkit status --json"))
        return status


@contextmanager
def running(
    name: str, folder: Path, settings: Settings, given: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Run an example until the end of the block, by which its README has to be typed."""
    example = Example(name, folder, settings, given or {})
    example.dev.start()
    try:
        yield example
        assert example.is_typed()
        assert example.dev.interrupt() == 0
    finally:
        example.dev.close()
