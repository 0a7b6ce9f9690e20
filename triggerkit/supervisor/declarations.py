"""What a project declares, read from its tasks and its file."""

from __future__ import annotations

from triggerkit.consumers.declaration import Declarations, read_file
from triggerkit.settings import Project, own_environment, running_environment
from triggerkit.worker.registry import declared_consumers, load_tasks


def load_declarations(project: Project) -> Declarations:
    """The consumers of the project's tasks and of its triggerkit.toml, and its endpoints.

    Raises:
        ConfigurationError: a task cannot be imported, or the file says something wrong.
    """
    environment = {**running_environment(project.folder), **own_environment(project.folder)}
    of_file, endpoints = read_file(project.endpoints, project.consumers, environment)
    return Declarations([*declared_consumers(load_tasks(project)), *of_file], endpoints)
