"""`triggerkit dev`: every process of a project under one supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from triggerkit.embedded import lifeline
from triggerkit.errors import PreflightFailed, TriggerkitError
from triggerkit.settings import Project, Settings
from triggerkit.state.connect import connect, redacted
from triggerkit.state.migrate import migrate
from triggerkit.supervisor.checks import run_checks
from triggerkit.supervisor.child import Child, Command
from triggerkit.supervisor.console import Console
from triggerkit.supervisor.folder import StateFolder
from triggerkit.supervisor.reload import code_changes
from triggerkit.supervisor.serve import listen
from triggerkit.supervisor.servers import EmbeddedServers

#: Seconds of waiting for a start after which it is said whom one waits for.
PATIENCE_S = 15.0

#: Seconds between two looks at an open backfill's progress.
PROGRESS_S = 0.25

#: What the children are started by, in the order they are stopped.
CHILDREN = ("stream", "serve", "worker", "embeddings")


class Dev:
    """Starts, watches and stops the processes; `run` returns when a signal came."""

    def __init__(self, project: Project, settings: Settings, console: Console) -> None:
        self._project = project
        self._settings = settings
        self._console = console
        self._children: dict[str, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._lifeline = lifeline.hold()
        self._environment: dict[str, str] = {}
        self._ready = False

    async def run(self, folder: StateFolder) -> None:
        """Run until SIGINT or SIGTERM, then stop everything in order.

        Raises:
            TriggerkitError: it cannot start; the message names the remedy.
        """
        started = time.monotonic()
        listener = listen(self._settings.triggerkit_host, self._settings.triggerkit_port)
        self._on_signals()
        servers = EmbeddedServers(folder.path, self._settings)
        try:
            if await self._or_stop(self._start(folder, servers, listener)):
                self._ready = True
                self._write_state(folder, servers)
                ms = (time.monotonic() - started) * 1000
                self._console.ready(ms, {"url": self._settings.public_url})
                await self._watch(folder, servers)
        finally:
            self._ready = False
            await self._shut_down(servers)
            self._console.close()

    async def _start(self, folder: StateFolder, servers: EmbeddedServers, listener: Any) -> None:
        self._console.note(f"triggerkit dev in {self._project.folder}")
        brought = await servers.start()
        port = str(listener.getsockname()[1])
        self._environment = {
            **folder.secrets(),
            **self._settings.environment(),
            **brought,
            "TRIGGERKIT_PORT": port,
        }
        self._settings = Settings.parse(self._environment)
        self._console.note(f"  database {redacted(self._settings.source_dsn)}")
        if servers.embeddings_listener is not None:
            self._console.note(
                "  embeddings by a local model, since OPENAI_API_KEY is not set: "
                f"{self._environment['EMBEDDING_MODEL']}"
            )
            fd = servers.embeddings_listener.fileno()
            arguments = ["triggerkit.embedded.embeddings", "--fd", str(fd)]
            # Connections wait in the socket's queue until the model is loaded.
            self._launch("embeddings", arguments, [fd], announces=False)
        await self._prepare()
        fd = listener.fileno()
        self._launch("serve", ["triggerkit", "serve", "--fd", str(fd)], [fd])
        self._launch("worker", ["triggerkit", "worker"])
        self._launch("stream", ["triggerkit", "stream"])
        await self._apply(servers)
        await self._until_ready()

    async def _until_ready(self) -> None:
        """Wait for all children, and say whom for when it takes long."""
        waiting = asyncio.gather(*(child.ready.wait() for child in self._children.values()))
        while not (await asyncio.wait({waiting}, timeout=PATIENCE_S))[0]:
            missing = [c.name for c in self._children.values() if not c.ready.is_set()]
            self._console.problem(f"still waiting for {', '.join(missing)} to be ready")

    async def _prepare(self) -> None:
        """State schema and the checks."""
        async with await connect(self._settings.state_dsn, "triggerkit dev") as state:
            for migration in await migrate(state):
                self._console.note(f"  state schema migrated to {migration.version}")
        checks = await run_checks(self._settings, [])
        for check in checks:
            self._console.check(check)
        if not all(check.ok for check in checks):
            raise PreflightFailed("preflight failed; mend what is marked ✗ and start again")

    async def _apply(self, servers: EmbeddedServers) -> None:
        """Make the project's own tables, where the database is ours, and its consumers."""
        arguments: list[str] = []
        if self._project.setup is not None and servers.brings_postgres:
            arguments = ["--setup", self._project.setup]
        await self._command("apply", arguments)

    def _launch(
        self,
        name: str,
        arguments: list[str],
        pass_fds: Sequence[int] = (),
        *,
        announces: bool = True,
    ) -> None:
        command = Command(
            name,
            arguments,
            self._project.folder,
            {**os.environ, **self._environment},
            self._lifeline,
            pass_fds,
            announces,
        )
        self._children[name] = child = Child(command, self._console.line)
        self._spawn(child.run())

    async def _command(self, name: str, arguments: Sequence[str] = ()) -> None:
        """Run a command of ours to its end.

        Raises:
            TriggerkitError: it failed; its output was shown, and its exit code is the error's.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "triggerkit",
            name,
            *arguments,
            cwd=self._project.folder,
            env={**os.environ, **self._environment, **self._lifeline.environment()},
            pass_fds=(self._lifeline.read_fd,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        output, _ = await process.communicate()
        for line in output.decode(errors="replace").splitlines():
            self._console.note(f"  {line}")
        if process.returncode:
            failed = TriggerkitError(f"{name} failed; its output is above")
            failed.exit_code = process.returncode
            raise failed

    async def _watch(self, folder: StateFolder, servers: EmbeddedServers) -> None:
        """Follow what happens until a signal comes."""
        self._spawn(self._show_backfills())
        self._spawn(self._reload())
        self._spawn(self._publish(folder, servers))
        keeping = asyncio.create_task(servers.keep(self._console.problem, self._console.note))
        await self._stop.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    async def _reload(self) -> None:
        """Follow the code: new processes take over once they are ready, else the old ones stay."""
        async for changed in code_changes(self._project.folder):
            self._console.note(f"changed: {', '.join(changed)}")
            started = time.monotonic()
            worker, serve = await asyncio.gather(
                self._children["worker"].replace(), self._children["serve"].replace()
            )
            if not (worker and serve):
                self._console.problem("the new code cannot be loaded; the old goes on")
                continue
            with contextlib.suppress(TriggerkitError):
                await self._command("apply")
            ms = (time.monotonic() - started) * 1000
            self._console.note(f"reloaded in {ms:.0f} ms")

    async def _show_backfills(self) -> None:
        """Draw a bar for each open backfill."""
        shown: set[str] = set()
        query = (
            "SELECT c.name || ' ' || b.table_name, rows_read, rows_estimated, b.state = 'completed'"
            " FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id"
        )
        while True:
            with contextlib.suppress(psycopg.OperationalError, TriggerkitError):
                async with await connect(self._settings.state_dsn, "triggerkit dev") as state:
                    while True:
                        cursor = await state.execute(query)
                        for name, done, total, finished in await cursor.fetchall():
                            if not finished or name in shown:
                                self._console.backfill(name, done, total, finished=finished)
                                (shown.discard if finished else shown.add)(name)
                        await asyncio.sleep(PROGRESS_S if shown else 1.0)
            await asyncio.sleep(1.0)

    async def _publish(self, folder: StateFolder, servers: EmbeddedServers) -> None:
        """Keep the state file true while children come and go."""
        before: object = None
        while True:
            now = self._processes(servers)
            if now != before:
                self._write_state(folder, servers)
                before = now
            await asyncio.sleep(PROGRESS_S)

    def _write_state(self, folder: StateFolder, servers: EmbeddedServers) -> None:
        folder.write_state(
            {
                "pid": os.getpid(),
                "ready": self._ready,
                "url": self._settings.public_url,
                "state_dir": str(folder.path),
                "processes": self._processes(servers),
                "env": self._settings.environment(),
            }
        )

    def _processes(self, servers: EmbeddedServers) -> list[dict[str, Any]]:
        ours = [{"name": c.name, "pid": c.pid, "state": c.state} for c in self._children.values()]
        return servers.processes() + ours

    async def _shut_down(self, servers: EmbeddedServers) -> None:
        """Stop the children in the order data flows, then the servers they use."""
        if self._children:
            self._console.note("stopping: what runs is finished first; Ctrl-C again to force")
        for name in CHILDREN:
            if name in self._children:
                await self._children[name].stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await servers.stop()
        self._lifeline.close()

    async def _or_stop(self, work: Any) -> bool:
        """Await `work` unless a signal comes first; whether it was done."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        await task
        return True

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signaled)

    def _signaled(self) -> None:
        if self._stop.is_set():
            for child in self._children.values():
                child.kill()
        self._stop.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def run_dev(project: Project, environment: Mapping[str, str], console: Console) -> None:
    """Run `triggerkit dev` for `project` until a signal.

    Raises:
        AlreadyRunning: another `dev` runs in the folder.
        TriggerkitError: it cannot start.
    """
    with StateFolder(project.folder) as folder:
        await Dev(project, Settings.parse(environment), console).run(folder)
