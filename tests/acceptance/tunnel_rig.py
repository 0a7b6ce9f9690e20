"""Commands of a tunnel as a user types them: `serve`, `stream` and `tunnel`, each a process."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import orjson
import psycopg

from tests.acceptance.project import ROOT, clean_environment, eventually, run_command
from tests.ports import free_port

BEARER = "the secret of the app on the laptop"

FILE = """
tasks = []

[endpoints.local_endpoint]
url = "/api/create-embedding-for-post"
local = true
headers = { Authorization = "Bearer ${APP_SECRET}" }
signing_secret = "${SIGNING_SECRET}"

[consumers.posts_push_consumer]
kind = "changes"
tables = ["public.posts"]
endpoint = "local_endpoint"
batch_size = 10
"""

POSTS = "CREATE TABLE posts (id bigint PRIMARY KEY, title text)"


class Process:
    """A command that runs, started again when it dies, if it is `kept`."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        settings: Mapping[str, str],
        *,
        before: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._arguments = [*before, sys.executable, "-m", "triggerkit", *arguments]
        self._settings = dict(settings)
        self.lines: list[str] = []
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def again(self, **settings: str) -> None:
        """Start it once more."""
        self.process.wait(10)
        self._settings |= settings
        self._start()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def interrupt(self, deadline_s: float = 20) -> int:
        """Ctrl-C, and its end; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(deadline_s)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The lines of JSON of one event."""
        found = [orjson.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in found if line["event"] == kind]

    def wait_for(self, kind: str, count: int = 1, deadline_s: float = 30) -> None:
        """Wait for so many lines of an event."""
        try:
            eventually(lambda: len(self.events(kind)) >= count, deadline_s, f"{count} {kind}")
        except AssertionError as error:
            error.add_note("\n".join(self.lines[-40:]))
            raise

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self._arguments,
            cwd=self._folder,
            env={**clean_environment(), "PYTHONPATH": str(ROOT), **self._settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, args=[self.process], daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))


class Office:
    """The server's side: a database, and how its processes are started."""

    def __init__(
        self, folder: Path, database_url: str, redis_url: str, signing_secret: str
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.database_url = database_url
        self.settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": secrets.token_urlsafe(32),
            "TRIGGERKIT_SECRET_KEY": secrets.token_urlsafe(32),
            "TRIGGERKIT_ENCRYPTION_KEY": secrets.token_urlsafe(32),
            "TRIGGERKIT_PORT": str(self.port),
            "APP_SECRET": BEARER,
            "SIGNING_SECRET": signing_secret,
        }
        (folder / "triggerkit.toml").write_text(FILE)
        self.sql(POSTS)
        self.triggerkit("apply")

    def triggerkit(self, *arguments: str) -> str:
        """Run a command that must succeed."""
        done = run_command(self.folder, "triggerkit", *arguments, settings=self.settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def token(self, user: str) -> Path:
        """The file with a new token of a user."""
        file = self.folder / f"{user}.token"
        file.write_text(self.triggerkit("tunnel", "tokens", "add", user))
        return file

    def process(self, *arguments: str, **settings: str) -> Process:
        """Start a process of the server's."""
        return Process(self.folder, arguments, {**self.settings, **settings})

    def until_serving(self, port: int | None = None) -> None:
        """Wait until a `serve` answers."""
        url = f"http://127.0.0.1:{port or self.port}/readyz"

        def answers() -> bool:
            try:
                with urlopen(url, timeout=2) as answer:
                    return bool(answer.status == 200)
            except (URLError, OSError):
                return False

        eventually(answers, 60, f"an answer of {url}")


def laptop(folder: Path, *arguments: str, before: Sequence[str] = (), **settings: str) -> Process:
    """Start `triggerkit tunnel`, with nothing of the server's settings, told in JSON."""
    given = ["tunnel", *arguments, "--output", "json"]
    os.makedirs(folder, exist_ok=True)
    return Process(folder, given, settings, before=before)
