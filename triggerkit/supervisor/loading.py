"""Loads a project's tasks and app; what fails is told by the project's own line.

An error inside a library names the line that called it, not the library's.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triggerkit.errors import TaskImportError, text_of
from triggerkit.project import Project
from triggerkit.tasks.registry import load_app, load_tasks
from triggerkit.tasks.task import Task


def load_project(project: Project) -> tuple[dict[str, Task[Any, Any, Any]], Any]:
    """Return the project's tasks by name, and its ASGI app, None when it has none.

    Raises:
        TaskImportError: a module cannot be imported; the message shows file, number and line.
        ConfigurationError: see `load_tasks` and `load_app`.
    """
    with _own_line(project.folder):
        return load_tasks(project), load_app(project)


def load_project_tasks(project: Project) -> dict[str, Task[Any, Any, Any]]:
    """Return the project's tasks alone; raises as `load_project` does."""
    with _own_line(project.folder):
        return load_tasks(project)


@contextlib.contextmanager
def _own_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except TaskImportError as error:
        cause = error.__cause__
        place = None if cause is None else _place(cause, folder)
        module, failed, _ = str(error).partition(" cannot be imported")
        if place is None or not failed:
            raise
        kind = f"{type(cause).__name__}: {_message(cause)}"
        if isinstance(cause, SystemExit):
            kind = f"the module ends the process that imports it, by sys.exit({cause.code!r})"
        raise TaskImportError(f"{module}{failed}: {place}\n  {kind}") from cause


def _place(error: BaseException, folder: Path) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename, folder)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else None


def _is_own(filename: str, folder: Path) -> bool:
    """Return whether a file is the project's: in its folder, but not of its virtual environment."""
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def _message(error: BaseException | None) -> str:
    return error.msg if isinstance(error, SyntaxError) else text_of(error)
