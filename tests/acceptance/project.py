"""A project in a folder of its own, worked on as a user does: by commands, SQL and HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import psycopg

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

#: How long any single command may take, in seconds.
COMMAND_TIMEOUT_S = 60.0

#: Variables of the machine the tests run on that would change what a project sees.
FOREIGN = ("TRIGGERKIT_", "DATABASE_URL", "REDIS_URL", "OPENAI_", "EMBEDDING_", "PG")


def eventually(look: Callable[[], T], deadline_s: float, what: str | Callable[[], str]) -> T:
    """Wait until `look` answers something true, and return it; `what` is said when it does not."""
    until = time.monotonic() + deadline_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > until:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {deadline_s:g} s: {said}; last seen: {seen!r}")
        time.sleep(0.01)


def run_command(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS` in `folder`, with no settings but `settings`."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**clean_environment(), **(settings or {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and name != "COLUMNS"
    }


def copy_reference_project(folder: Path) -> Path:
    """Copy what makes the reference project into `folder`."""
    for name in ("app", "tasks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    shutil.copy(ROOT / "triggerkit.toml", folder)
    return folder


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)


class DevProcess:
    """`triggerkit dev --json` in a project's folder, started like from a terminal."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self.lines: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it serves."""
        return str(self._of("ready")[0]["url"])

    def start(self, deadline_s: float = 60.0) -> None:
        """Start it and wait for its one line `ready`."""
        self.lines = []
        log = (self.folder / "dev.stderr").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "triggerkit", "dev", "--json", "--port", "0", *self._options],
            cwd=self.folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            eventually(lambda: self._of("ready") or self._ended(), deadline_s, "a line `ready`")
        except AssertionError as error:
            error.add_note(self.explain())
            raise
        assert self._of("ready"), self.explain()

    def interrupt(self) -> int:
        """Ctrl-C and its end; the exit code."""
        self.press_ctrl_c()
        return self.wait(15)

    def press_ctrl_c(self) -> None:
        """SIGINT to the whole process group, as a terminal sends it."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(5)

    def wait(self, deadline_s: float) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(deadline_s)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """Make sure that it has ended."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def explain(self) -> str:
        """What it said, for a failed assertion."""
        said = "\n".join(map(str, self.lines[-30:]))
        return f"{said}\n{(self.folder / 'dev.stderr').read_text()}"

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.lines.append(orjson.loads(line))

    def _of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == event]

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


class ReferenceProject:
    """The reference project while its `dev` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = copy_reference_project(folder)
        self.dev = DevProcess(folder)
        self._database_url = ""

    def start(self) -> None:
        """Start `dev`."""
        self.dev.start()
        self._database_url = self.status()["database_url"]

    def triggerkit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of triggerkit in another terminal."""
        return run_command(self.folder, "triggerkit", *arguments)

    def status(self) -> dict[str, Any]:
        """What `triggerkit status --json` prints."""
        status: dict[str, Any] = orjson.loads(self.triggerkit("status", "--json").stdout)
        return status

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection to the project's database, as psql would make it."""
        return psycopg.connect(self._database_url, autocommit=True)

    def secret(self, name: str) -> str:
        """One of the secrets `dev` made."""
        secrets = orjson.loads((self.folder / ".triggerkit" / "secrets.json").read_bytes())
        return str(secrets[name])

    def get(self, path: str) -> Answer:
        """GET a path of the served app."""
        return _answer(Request(self.dev.url + path))

    def post(self, path: str, body: Any, authorization: str | None = None) -> Answer:
        """POST JSON to a path of the served app."""
        headers = {"content-type": "application/json"}
        if authorization is not None:
            headers["authorization"] = authorization
        return _answer(Request(self.dev.url + path, orjson.dumps(body), headers, method="POST"))


def _answer(request: Request) -> Answer:
    try:
        with urlopen(request, timeout=30) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())
