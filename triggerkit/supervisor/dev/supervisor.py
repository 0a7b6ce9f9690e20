"""`triggerkit dev`: every process of a project under one supervisor."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triggerkit import lifeline
from triggerkit.configuration.addresses import shown_database
from triggerkit.consumers.filters.functions import any_code
from triggerkit.errors import PreflightFailed
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate
from triggerkit.supervisor.checks import run_checks
from triggerkit.supervisor.dev.child import CommandProcess
from triggerkit.supervisor.dev.code import Facts, code_files
from triggerkit.supervisor.dev.command_output import ErrandFailed, run_errand
from triggerkit.supervisor.dev.console import Console, runs
from triggerkit.supervisor.dev.executing import count_executing, forget_dead
from triggerkit.supervisor.dev.folder import StateFolder
from triggerkit.supervisor.dev.forks import ForkServer
from triggerkit.supervisor.dev.instance import LOOPBACK_NETWORKS, Command, child_environment
from triggerkit.supervisor.dev.progress import BackfillDisplay
from triggerkit.supervisor.dev.published import PublishedState
from triggerkit.supervisor.dev.reload import Reload
from triggerkit.supervisor.dev.servers import EmbeddedServers
from triggerkit.supervisor.dev.signals import StopSignals
from triggerkit.supervisor.probes.listening import listen
from triggerkit.web.dashboard.session import login_link

#: Seconds of waiting for a start after which it is said whom one waits for.
PATIENCE_S = 15.0

#: What the children are started by, in the order they are stopped.
CHILDREN = ("stream", "deliver", "serve", "worker", "embeddings")

#: Logs the error that ends a command.
FATAL_LOGGER = "triggerkit.cli.main"


class Dev:
    """Starts, watches and stops the processes; `run` returns when a signal came."""

    def __init__(
        self, project: Project, settings: Settings, console: Console, forks: ForkServer | None
    ) -> None:
        self._project = project
        self._settings = settings
        self._console = console
        self._forks = forks
        self._children: dict[str, CommandProcess] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._signals = StopSignals()
        self._lifeline = lifeline.hold()
        self._environment: dict[str, str] = {}
        self._fatal_errors: set[Any] = set()
        #: The files of the code as they were before anything read them.
        self._code: Mapping[str, Facts] = {}

    async def run(self, folder: StateFolder) -> None:
        """Run until SIGINT or SIGTERM, then stop everything in order.

        Raises:
            TriggerkitError: it cannot start; the message names the remedy.
        """
        started = time.monotonic()
        listener = listen(self._settings.triggerkit_host, self._settings.triggerkit_port)
        self._signals.listen()
        servers = EmbeddedServers(folder.path, self._settings)
        try:
            if await self._signals.unless_stopped(self._start(folder, servers, listener)):
                published = PublishedState(folder, servers, self._children, self._signals.stop)
                published.write(self._settings)
                ms = (time.monotonic() - started) * 1000
                self._console.ready(ms, self._addresses())
                await self._watch(servers, published)
        finally:
            await self._shut_down(servers)
            self._console.close()

    async def _start(self, folder: StateFolder, servers: EmbeddedServers, listener: Any) -> None:
        self._console.note(f"triggerkit dev in {self._project.folder}")
        brought = await servers.start()
        networks = [self._settings.triggerkit_allow_networks, LOOPBACK_NETWORKS]
        port = str(listener.getsockname()[1])
        self._environment = {
            **folder.secrets(),
            **self._settings.environment(),
            **brought,
            "TRIGGERKIT_PORT": port,
            "TRIGGERKIT_ALLOW_NETWORKS": ",".join(filter(None, networks)),
        }
        self._settings = Settings.parse(self._environment)
        self._console.note(f"  database {shown_database(self._settings.source_dsn)}")
        if servers.shared_user is not None:
            self._console.note(
                f"  it runs as {servers.shared_user}, since this is root: whoever else runs as "
                "that user can read it and write to it"
            )
        if servers.embeddings_listener is not None:
            self._console.note(
                "  embeddings by a local model, since OPENAI_API_KEY is not set: "
                f"{self._environment['EMBEDDING_MODEL']}"
            )
        if servers.needs_key:
            self._console.note(
                "  no embeddings: the local model cannot be installed for this Python; a task that "
                "makes some needs OPENAI_API_KEY, in .env"
            )
        await self._prepare()
        self._code = await asyncio.to_thread(code_files, self._project.folder)
        fd = listener.fileno()
        self._launch("worker", ["worker"])
        self._launch("serve", ["serve", "--fd", str(fd)], [fd])
        self._launch("stream", ["stream"])
        if self._delivers_apart:
            self._launch("deliver", ["deliver"])
        await self._apply(servers)
        await self._until_ready()
        if servers.embeddings_listener is not None:
            # Last, since it takes long and nobody waits for it: connections wait in the socket's
            # queue until the model is loaded.
            fd = servers.embeddings_listener.fileno()
            module = "triggerkit.embedded.embeddings"
            self._launch("embeddings", ["--fd", str(fd)], [fd], module=module, announces=False)

    @property
    def _delivers_apart(self) -> bool:
        """Whether the stream only captures."""
        return self._settings.triggerkit_log == "kafka"

    def _addresses(self) -> dict[str, str]:
        """Return where it serves, and a link to the dashboard that logs in once."""
        url, key = self._settings.public_url, self._settings.triggerkit_secret_key
        assert key is not None, "the folder's secrets have one"
        return {"url": url, "dashboard": login_link(url, key)}

    async def _until_ready(self) -> None:
        """Wait for all children, and say whom for when it takes long."""
        waiting = asyncio.gather(*(child.ready.wait() for child in self._children.values()))
        while not (await asyncio.wait({waiting}, timeout=PATIENCE_S))[0]:
            missing = [c.name for c in self._children.values() if not c.ready.is_set()]
            self._console.problem(f"still waiting for {', '.join(missing)} to be ready")

    async def _prepare(self) -> None:
        """State schema and the checks."""
        async with await connect(self._settings.state_dsn, "triggerkit dev") as state:
            if done := await migrate(state):
                self._console.note(f"  schema triggerkit migrated to version {done[-1].version}")
        checks = await run_checks(self._settings, [])
        for check in checks:
            self._console.check(check)
        if not all(check.ok for check in checks):
            raise PreflightFailed("preflight failed; fix what is marked ✗ and start again")

    async def _apply(self, servers: EmbeddedServers) -> None:
        """Make the project's own tables, where the database is ours, and its consumers."""
        arguments = ["--keep"]
        if self._project.setup is not None and servers.brings_postgres:
            arguments += ["--setup", self._project.setup]
        await self._run("apply", *arguments)

    def _launch(
        self,
        name: str,
        arguments: list[str],
        pass_fds: Sequence[int] = (),
        **given: Any,
    ) -> None:
        command = replace(self._command(name, arguments), pass_fds=pass_fds, **given)
        self._children[name] = child = CommandProcess(command, self._heard)
        self._spawn(child.run(), f"keeping {name} running")

    def _command(self, name: str, arguments: Sequence[str]) -> Command:
        environment = child_environment(os.environ, self._environment)
        folder = self._project.folder
        return Command(name, arguments, folder, environment, self._lifeline, forks=self._forks)

    def _errand(self, *arguments: str) -> Command:
        return replace(self._command(arguments[0], arguments), logs_json=False)

    async def _run(self, *arguments: str) -> None:
        """Run a command of ours to its end and show what it says.

        Raises:
            ErrandFailed: it failed.
        """
        try:
            lines = await run_errand(self._errand(*arguments))
        except ErrandFailed as error:
            for line in error.lines:
                self._console.problem(line)
            raise
        for line in lines:
            self._console.note(f"  {line}")

    async def _watch(self, servers: EmbeddedServers, published: PublishedState) -> None:
        """Follow what happens until a signal comes."""
        backfills = BackfillDisplay(self._settings.state_dsn, self._console)
        self._spawn(backfills.follow(), "showing backfills")
        replaced = [self._children["worker"], self._children["serve"]]
        apply = self._errand("apply", "--keep")
        reload = Reload(
            self._project.folder,
            self._code,
            replaced,
            self._children["deliver" if self._delivers_apart else "stream"],
            apply,
            self._console,
            self._fatal_errors.clear,
            self._uses_code,
        )
        self._spawn(reload.follow(), "reloading")
        self._spawn(published.keep(self._settings), "telling `triggerkit status` of the processes")
        keeping = self._spawn(
            servers.keep(self._console.problem, self._console.note), "keeping the servers running"
        )
        await self._signals.stop.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    async def _uses_code(self) -> bool:
        async with await connect(self._settings.state_dsn, "triggerkit dev") as state:
            return await any_code(state)

    async def _shut_down(self, servers: EmbeddedServers) -> None:
        """Stop the children in the order data flows, then the servers they use."""
        forcing = asyncio.create_task(self._force())
        if "worker" in self._children:
            await self._drain(self._children["worker"])
        for name in CHILDREN:
            if name in self._children:
                await self._children[name].stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._signals.force.is_set():
            await forcing
        forcing.cancel()
        await servers.stop()
        self._lifeline.close()

    async def _drain(self, worker: CommandProcess) -> None:
        """Have the worker take no more runs, and say for how many one waits."""
        pids = worker.alive
        worker.ask_to_end()
        executing = await count_executing(self._settings.state_dsn, pids)
        self._console.stopping(executing)

    async def _force(self) -> None:
        """At the second signal end the children; the runs they had are the next start's."""
        await self._signals.force.wait()
        worker = self._children.get("worker")
        pids = [] if worker is None else worker.alive
        for child in self._children.values():
            child.kill()
            await child.stop()
        if pids and (cut := await forget_dead(self._settings.state_dsn, pids)):
            self._console.problem(f"{runs(cut)} cut off; the next start executes what was cut off")

    def _heard(self, process: str, facts: dict[str, Any]) -> None:
        """Show a line of a child's log, and have the runs of a worker that died go on at once."""
        # Code that cannot be loaded ends both `serve` and the worker: its error is told once.
        if facts.get("logger") == FATAL_LOGGER:
            if facts["message"] in self._fatal_errors:
                return
            self._fatal_errors.add(facts["message"])
        self._console.line(process, facts)
        if process == "worker" and facts.get("event") == "died":
            self._spawn(
                forget_dead(self._settings.state_dsn, [facts["pid"]]),
                "giving the runs of the worker that died to another one",
            )

    def _spawn(self, work: Any, what: str) -> asyncio.Future[Any]:
        """Have `work` done beside all else; if it fails, tell of it by what it is."""

        def ended(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                kind = type(error).__name__
                self._console.problem(
                    f"{what} ended by an error, and is back when triggerkit dev is started again: "
                    f"{kind}: {error}"
                )

        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task


async def run_dev(
    project: Project,
    environment: Mapping[str, str],
    console: Console,
    forks: ForkServer | None,
) -> None:
    """Run `triggerkit dev` for `project` until a signal, its processes forked where they can be.

    Raises:
        AlreadyRunning: another `dev` runs in the folder.
        TriggerkitError: it cannot start.
    """
    with StateFolder(project.folder) as folder:
        await Dev(project, Settings.parse(environment), console, forks).run(folder)
