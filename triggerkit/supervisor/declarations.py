"""Load what a project declares, from its tasks and its file."""

from __future__ import annotations

from triggerkit.consumers.declare.declaration import Declarations, read_file
from triggerkit.events.declaration import read_events
from triggerkit.project import Project
from triggerkit.runs.declared import DeclaredRuns
from triggerkit.settings import own_environment, running_environment
from triggerkit.tasks.registry import (
    check_direct,
    declared_consumers,
    declared_runs,
    load_tasks,
)


def load_declarations(project: Project) -> Declarations:
    """Return the first part of what `load_all_declarations` gives."""
    return load_all_declarations(project)[0]


def load_all_declarations(project: Project) -> tuple[Declarations, DeclaredRuns]:
    """Return the consumers of the project's tasks and of its triggerkit.toml, its endpoints and its
    events; and the limits of its queues and the schedules of its tasks.

    Raises:
        ConfigurationError: a task cannot be imported, or the file says something wrong.
    """
    environment = {**running_environment(project.folder), **own_environment(project.folder)}
    of_file, endpoints = read_file(project.endpoints, project.consumers, environment)
    tasks = load_tasks(project)
    check_direct(of_file, tasks)
    events = read_events(project.events)
    declarations = Declarations(
        [*declared_consumers(tasks), *of_file],
        endpoints,
        events,
        has_kafka=bool(environment.get("KAFKA_BOOTSTRAP_SERVERS")),
        is_log_on_kafka=environment.get("TRIGGERKIT_LOG") == "kafka",
    )
    return declarations, declared_runs(tasks)
