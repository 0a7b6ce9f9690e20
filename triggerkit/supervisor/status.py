"""Gather what `triggerkit status` shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

from triggerkit.configuration.addresses import shown_database, shown_server
from triggerkit.consumers.health import ConsumerHealth, Problem, consumer_health, with_losses
from triggerkit.errors import CannotConnect, TriggerkitError
from triggerkit.project import Project
from triggerkit.runs.admin.health import RunHealth, run_health
from triggerkit.runs.admin.waiting import WaitingTask, waiting_tasks
from triggerkit.runs.admin.workers import WorkerInfo, known_workers, list_workers
from triggerkit.runs.session import by_index
from triggerkit.settings import STATE_DIR, Settings
from triggerkit.state.connect import connect, pool
from triggerkit.state.migrate import schema_problem
from triggerkit.state.reading import Together
from triggerkit.supervisor.behind import Shown, shown_runs
from triggerkit.supervisor.health import CapturedDatabase, database_health
from triggerkit.supervisor.readiness import missing, processes_of, serves
from triggerkit.supervisor.streaming.retaining import policy_of
from triggerkit.tasks.registry import load_tasks
from triggerkit.tasks.task import Task

#: The lists of things that `status` shows, each with its problems.
SHOWN = ("databases", "consumers", "waiting", "failing", "queues", "workers", "schedules")


@dataclass(frozen=True, slots=True)
class _Health:
    """What was found of everything; `unreachable` says that the source does not answer."""

    unreachable: Sequence[Problem]
    databases: Sequence[CapturedDatabase]
    consumers: Sequence[ConsumerHealth]
    waiting: Sequence[WaitingTask]
    runs: RunHealth


async def read_status(
    project: Project, running: dict[str, Any] | None, show_secrets: bool
) -> dict[str, Any]:
    """Return the status of the project: of a running `dev` when there is one, else of what is
    set."""
    settings = Settings.load(project.folder)
    health: dict[str, list[dict[str, Any]]] = {name: [] for name in SHOWN}
    problem: str | None = None
    workers: list[WorkerInfo] = []
    try:
        workers = await _workers(settings)
        health = await read_health(settings, workers)
    except TriggerkitError as error:
        problem = str(error)
    except psycopg.Error as error:
        problem = await schema_problem(settings.state_dsn) or str(error).splitlines()[0]
    try:
        known = load_tasks(project)
        tasks = sorted(known)
        declares = any(task.on is not None for task in known.values())
    except TriggerkitError as error:
        tasks, declares, problem = [], False, str(error)
    processes = running["processes"] if running else []
    lacking: list[str] = []
    if problem is None:
        databases = health["databases"]
        if running is None:
            answers = await serves(settings)
            processes = processes_of(databases, workers, serves=answers)
            found = missing(health, processes, settings.public_url, declares=declares)
            lacking = [str(one) for one in found]
        elif databases and all(database["slot_active"] is False for database in databases):
            lacking = ["no stream reads the source's changes"]
    is_up = running is None or bool(running["ready"])
    return {
        "ready": problem is None and is_up and not lacking,
        "url": running["url"] if running else settings.public_url,
        "dashboard_url": f"{running['url'] if running else settings.public_url}/dashboard/",
        "database_url": _shown(settings.database_url, show_secrets, _database),
        "redis_url": _shown(settings.redis_url, show_secrets, shown_server),
        "state_dir": str(running["state_dir"] if running else Path(project.folder) / STATE_DIR),
        "processes": processes,
        **health,
        "tasks": tasks,
        "problem": problem,
        "missing": lacking,
    }


async def _workers(settings: Settings) -> list[WorkerInfo]:
    # A pool tries for long where nothing answers; one connection says so at once.
    async with await connect(settings.state_dsn, "triggerkit status"):
        pass
    async with pool(settings.state_dsn, "triggerkit status", size=1) as states:
        return await list_workers(states)


async def read_overview(
    settings: Settings, states: AsyncConnectionPool, tasks: Iterable[Task[Any, Any, Any]]
) -> dict[str, Any]:
    """Return what the status of a `serve` that answers is, without a look at heartbeats: a worker
    that is silent loses its lease within seconds."""
    async with states.connection() as state, Together(state) as reads:
        workers, found = await asyncio.gather(known_workers(reads), _health(settings, reads))
    health = _shown_health(found, workers)
    processes = processes_of(health["databases"], workers, serves=True)
    declares = any(task.on is not None for task in tasks)
    lacking = list(missing(health, processes, settings.public_url, declares=declares))
    return {"ready": not lacking, "processes": processes, "missing": lacking, **health}


async def read_problems(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return the health of all, with workers that are silent: it takes the seconds in which each
    raises its heartbeat."""
    return await read_health(settings, await _workers(settings))


async def read_health(
    settings: Settings, workers: Sequence[WorkerInfo] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Return the health of databases, consumers and runs, and the tasks that wait; a source that
    does not answer is a problem of it."""
    dsn = by_index(settings.state_dsn)
    async with await connect(dsn, "triggerkit status") as state, Together(state) as reads:
        return _shown_health(await _health(settings, reads), workers)


async def _health(settings: Settings, state: Together) -> _Health:
    async with AsyncExitStack() as stack:
        source: Together | None = state
        slots: Together | None = None
        unreachable: list[Problem] = []
        url = "DATABASE_URL"
        try:
            if settings.state_dsn != settings.source_dsn:
                source = await _reads(stack, settings.source_dsn)
            if settings.slot_dsn != settings.source_dsn:
                url = "TRIGGERKIT_STANDBY_URL"
                slots = await _reads(stack, settings.slot_dsn)
        except CannotConnect as error:
            source = None
            remedy = f"start that server, or correct {url}"
            unreachable = [Problem("unreachable", "error", str(error), remedy)]
        (databases, outlooks), consumers, waiting, runs = await asyncio.gather(
            database_health(state, source, policy_of(settings), slots),
            consumer_health(state),
            waiting_tasks(state),
            run_health(state),
        )
    return _Health(unreachable, databases, with_losses(consumers, outlooks), waiting, runs)


async def _reads(stack: AsyncExitStack, dsn: str) -> Together:
    connection = await stack.enter_async_context(await connect(dsn, "triggerkit status"))
    return await stack.enter_async_context(Together(connection))


def _shown_health(health: _Health, workers: Sequence[WorkerInfo]) -> dict[str, list[Shown]]:
    databases = [asdict(database) for database in health.databases]
    for database in databases:
        database["problems"] = [*map(asdict, health.unreachable), *database["problems"]]
    return {
        "databases": databases,
        "consumers": [asdict(consumer) for consumer in health.consumers],
        "waiting": [
            {**asdict(task), "problems": [asdict(_problem_of(task))]} for task in health.waiting
        ],
        **shown_runs(health.runs, workers),
    }


def _problem_of(task: WaitingTask) -> Problem:
    """Return what is wrong with a task that waits."""
    if task.run is not None:
        detail = f"runs that asked {task.waits} times or more to be tried again later: {task.runs}"
        remedy = f"triggerkit runs show {task.run}"
        return Problem("asks_again", "error", f"{detail} ({task.error})", remedy)
    detail = f"what it calls is busy or away since {task.since:%H:%M:%S} UTC: {task.error}"
    remedy = (
        f"triggerkit runs list --task {task.task} --status queued,retrying  # they go on by "
        "themselves once one that is tried succeeds"
    )
    return Problem("away", "error", detail, remedy)


def _shown(secret: SecretStr | None, show_secrets: bool, shown: Callable[[str], str]) -> str:
    """Return a connection string without its password, unless it is asked for."""
    if secret is None:
        return ""
    url = secret.get_secret_value()
    return url if show_secrets else shown(url)


def _database(url: str) -> str:
    return shown_database(url, is_whole=True)
