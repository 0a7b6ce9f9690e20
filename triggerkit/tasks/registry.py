"""Finding tasks: imports the task modules of a project."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from triggerkit.consumers.declare.declaration import Declared
from triggerkit.errors import (
    ConfigurationError,
    TaskImportError,
    TriggerkitError,
    text_of,
    unknown_name,
)
from triggerkit.project import Project
from triggerkit.runs.declared import DeclaredRuns, Limits, Schedule
from triggerkit.tasks.declare import check_takes, declared
from triggerkit.tasks.task import Task


def load_tasks(project: Project) -> dict[str, Task[Any, Any, Any]]:
    """Import the project's task modules, packages with all their modules, and return the tasks.

    Raises:
        TaskImportError: a module cannot be imported; the message shows the user's line.
        DuplicateTask: two tasks have one name.
    """
    project.make_importable()
    for name in project.tasks:
        module = import_module(project, name)
        for found in _modules_of(project, module, name):
            import_module(project, found)
    return dict(declared)


def _modules_of(project: Project, module: ModuleType, name: str) -> Iterator[str]:
    """Yield the names of the modules in a package. Its `__main__` is a program: to import it is to
    run it."""
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
        if found.name.endswith(".__main__"):
            continue
        yield found.name
        if found.ispkg:
            yield from _modules_of(project, import_module(project, found.name), found.name)


def import_module(project: Project, name: str) -> ModuleType:
    """Import one of the project's modules; what it raises becomes an error that teaches.

    Raises:
        TaskImportError: see `load_tasks`.
    """
    project.make_importable()
    try:
        return importlib.import_module(name)
    except TriggerkitError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskImportError(
                f"there is no module {error.name!r} in {project.folder}; correct `tasks` or `app` "
                "in triggerkit.toml, or run the command in the project's folder"
            ) from error
        raise TaskImportError(f"{name} cannot be imported: {_user_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise TaskImportError(f"{name} cannot be imported: {_user_line(error)}") from error


def load_app(project: Project) -> Any:
    """Return the project's ASGI app, None when it has none.

    Raises:
        ConfigurationError: `app` names nothing that exists.
    """
    if project.app is None:
        return None
    module_name, _, attribute = project.app.partition(":")
    module = import_module(project, module_name)
    try:
        return getattr(module, attribute or "app")
    except AttributeError:
        raise ConfigurationError(
            f"app = {project.app!r}: {module_name} has no {attribute or 'app'!r}"
        ) from None


def declared_consumers(tasks: dict[str, Task[Any, Any, Any]]) -> list[Declared]:
    """Return the consumers that tasks declare by `on=`."""
    return [
        Declared(
            name=task.on.name or task.name,
            definition=task.on,
            path=task.path if task.has_route else None,
        )
        for task in tasks.values()
        if task.on is not None
    ]


def check_direct(consumers: Iterable[Declared], tasks: dict[str, Task[Any, Any, Any]]) -> None:
    """See that tasks which `consumers` make runs of directly are there and take what they send.

    Raises:
        ConfigurationError: one is not, or does not.
    """
    for consumer in consumers:
        name = consumer.definition.task
        if name is None:
            continue
        if name not in tasks:
            raise ConfigurationError(
                f"{consumer.where} task: {unknown_name('task', name, sorted(tasks))}"
            )
        check_takes(tasks[name], consumer.definition)


def declared_runs(tasks: dict[str, Task[Any, Any, Any]]) -> DeclaredRuns:
    """Return the limits of queues and the schedules that tasks declare.

    Raises:
        ConfigurationError: two tasks declare different limits of one queue.
    """
    queues: dict[str, Limits] = {}
    schedules: dict[str, Schedule] = {}
    for task in tasks.values():
        queue = task.declared_queue
        if queue.has_limits:
            limits = Limits(queue.concurrency, *(queue.rate_limit or (None, None)))
            if queues.setdefault(task.queue, limits) != limits:
                raise ConfigurationError(
                    f"task {task.name}: another task declares other limits of the queue "
                    f"{task.queue}; declare the Queue once and give it to both"
                )
        if task.schedule is not None:
            cron = task.schedule
            schedules[task.name] = Schedule(
                task.name,
                task.queue,
                task.retry.max_attempts,
                cron.expression,
                cron.timezone,
                cron.catch_up,
                task.ttl_s,
                task.priority,
            )
    return DeclaredRuns(queues, schedules)


def _user_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    last = frames[-1] if frames else None
    place = f"{last.filename}:{last.lineno}: {last.line}\n  " if last else ""
    if isinstance(error, SystemExit):
        return f"{place}it ends the process that imports it, by sys.exit({error.code!r})"
    return f"{place}{type(error).__name__}: {text_of(error)}"
