"""Tell which version of the project's code a worker has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from triggerkit.tasks.function import place_of
from triggerkit.tasks.task import Task


def code_version(tasks: Iterable[Task[Any, Any, Any]]) -> str:
    """Eight characters that change with the files in which the tasks are declared."""
    files = {place_of(task.function)[0] for task in tasks}
    digest = hashlib.sha256()
    for name in sorted(files):
        path = Path(name)
        digest.update(path.read_bytes() if path.is_file() else name.encode())
    return digest.hexdigest()[:8]
