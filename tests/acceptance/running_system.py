"""A running system: `stream`, `serve` and `worker` of a project, each a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg

from tests.acceptance.project import clean_environment, eventually
from tests.conftest import WEBHOOK_SECRET
from tests.ports import free_port
from tests.servers import Servers
from triggerkit.settings import Settings

#: What opens the API and the dashboard.
SECRET_KEY = "a management key for the tests only"

#: What a task does is said by a file, so that a fault can be planted and mended.
TASKS = '''
import asyncio
import os
from pathlib import Path
from typing import Any

import psycopg
from pydantic import BaseModel, field_validator
from triggerkit import Change, Retry, rows, task

IN_STEP = """
SELECT i.id, CASE WHEN coalesce(i.name, '') = '' AND e.id IS NULL THEN 'empty'
    WHEN e.id IS NULL THEN 'missing' ELSE 'stale' END
FROM public.items i LEFT JOIN public.effects e ON e.id = i.id
WHERE e.name IS DISTINCT FROM i.name OR coalesce(i.name, '') = ''
"""


class ApiBusy(Exception):
    """What an API answers that is asked too often."""


def behaves() -> str:
    return Path("behaviour").read_text()


class Item(BaseModel):
    id: int
    name: str | None = None

    @field_validator("name")
    @classmethod
    def welcome(cls, name: str | None) -> str | None:
        if behaves() == "strict":
            raise ValueError("is not welcome")
        return name


@task(
    retry=Retry(max_attempts=2, min_delay_s=0.1, max_delay_s=0.2, wait_for=(ApiBusy,)),
    queue="copies",
    verify=IN_STEP,
    on=rows("public.items", filters=[("name", "!=", "draft")], max_attempts=1),
)
async def copy_item(change: Change[Item]) -> None:
    behaviour = behaves()
    if behaviour == "raise":
        raise ValueError("no such price")
    if behaviour == "busy":
        raise ApiBusy("Error code: 429")
    if behaviour == "hang" and change.action == "insert":
        await asyncio.sleep(600)
    if change.record.name:
        dsn = os.environ["DATABASE_URL"]
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(
                "INSERT INTO public.effects VALUES (%s, %s) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                [change.record.id, change.record.name],
            )
'''

TABLES = """
CREATE TABLE public.items (id bigint PRIMARY KEY, name text);
CREATE TABLE public.effects (id bigint PRIMARY KEY, name text);
"""


class System:
    """The project, its database and its processes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **clean_environment(),
            **environment,
            "TRIGGERKIT_PORT": str(free_port()),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._next_id = 0
        (folder / "copying.py").write_text(TASKS)
        (folder / "triggerkit.toml").write_text('tasks = ["copying"]\n')
        self.behave("well")
        self.execute(TABLES)

    def behave(self, how: str) -> None:
        """Have the task do something else from now on."""
        (self.folder / "behaviour").write_text(how)

    def execute(self, statement: str, *parameters: Any) -> list[Any]:
        """Run a statement on the database."""
        url = self.environment["DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def insert(self, name: str) -> str:
        """Insert a row; return its key."""
        self._next_id += 1
        self.execute("INSERT INTO public.items VALUES (%s, %s)", self._next_id, name)
        return str(self._next_id)

    def has_effect(self, key: str) -> bool:
        """Return whether a row has its effect."""
        found = self.execute(
            "SELECT e.name = i.name FROM public.items i JOIN public.effects e USING (id) "
            "WHERE id = %s",
            int(key),
        )
        return found == [(True,)]

    def start_dashboard(self) -> str:
        """Start a `serve` beside the one that the endpoint leads to; return its dashboard's URL."""
        port = str(free_port())
        self.start("serve", named="dashboard", TRIGGERKIT_PORT=port)
        return f"http://127.0.0.1:{port}/dashboard"

    def start(self, command: str, named: str | None = None, **settings: str) -> None:
        """Start one of the three, and wait until it is ready; it takes the place of one that has
        the same name."""
        name = named or command
        if name in self.processes:
            self.stop(name)
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "triggerkit", command],
                cwd=self.folder,
                env={**self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: "ready" in log.read_text(), 30, f"{name} that is ready")

    def stop(self, name: str, by: signal.Signals = signal.SIGTERM) -> None:
        """End one of them."""
        process = self.processes[name]
        process.send_signal(by)
        process.wait(20)
        del self.processes[name]

    def stop_all(self) -> None:
        """End them all."""
        for name in list(self.processes):
            self.stop(name, signal.SIGKILL)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours to its end."""
        return subprocess.run(
            [sys.executable, "-m", "triggerkit", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def type(self, remedy: str) -> None:
        """Type a remedy as it is printed, in a shell; one that starts a process keeps running."""
        started = shlex.split(remedy, comments=True)[1]
        if started in ("stream", "serve", "worker"):
            self.start(started)
            return
        shell = self.folder / "bin"
        shell.mkdir(exist_ok=True)
        own = shell / "triggerkit"
        own.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m triggerkit "$@"\n')
        own.chmod(0o755)
        path = f"{shell}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", remedy],
            cwd=self.folder,
            env={**self.environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{remedy}\n{done.stdout}{done.stderr}"

    def why(self, *words: str) -> dict[str, Any]:
        """What `triggerkit why --json` says."""
        done = self.command("why", *words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = orjson.loads(done.stdout)
        return found

    def status(self) -> str:
        """What `triggerkit status` prints."""
        return self.command("status").stdout

    def told(self, key: str, code: str, status: str, within_s: float) -> dict[str, Any]:
        """Wait until `why` has this code and `status` this text, asked within so many seconds;
        return the answer."""
        until = time.monotonic() + within_s
        while True:
            looked_at = time.monotonic()
            answer, shown = self.why("public.items", key), self.status()
            if answer["code"] == code and status in shown:
                return answer
            if looked_at > until:
                raise AssertionError(f"after {within_s} s: {answer}\n{shown}\n{self.logs()}")

    def mended(self, key: str, within_s: float = 20) -> None:
        """Wait until a row has its effect, and `why` says so."""
        try:
            eventually(lambda: self.has_effect(key), within_s, f"the effect of {key}")
        except AssertionError as error:
            error.add_note(f"{self.why('public.items', key)}\n{self.status()}\n{self.logs()}")
            raise
        assert self.why("public.items", key)["code"] == "up_to_date"

    def be_well(self) -> None:
        """Make sure that nothing is planted: a row has its effect, and `status` is ready."""
        self.behave("well")
        self.mended(self.insert("first"))
        assert self.status().startswith("ready"), self.status()

    def logs(self) -> str:
        """The last lines that the processes wrote."""
        texts = [(log.name, log.read_text()[-1500:]) for log in self.folder.glob("*.log")]
        return "\n".join(f"--- {name}\n{text}" for name, text in texts)


@contextmanager
def running_system(servers: Servers, folder: Path) -> Iterator[System]:
    """A system in `folder`, on a database of its own, that runs and is well."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
    settings = Settings.parse(
        {
            "DATABASE_URL": url,
            "REDIS_URL": servers.redis.url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRIGGERKIT_SECRET_KEY": SECRET_KEY,
            "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        }
    )
    system = System(folder, settings.environment())
    try:
        applied = system.command("apply")
        assert applied.returncode == 0, applied.stderr
        for name in ("serve", "worker", "stream"):
            system.start(name)
        yield system
    finally:
        system.stop_all()
        servers.drop_database(url)
