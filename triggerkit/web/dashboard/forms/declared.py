"""Say where something is declared that these pages do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triggerkit.consumers.declare.declaration import FILE, Manager
from triggerkit.tasks.task import Task
from triggerkit.web.dashboard.values import short_place


def declared_at(
    tasks: Sequence[Task[Any, Any, Any]], managed_by: Manager | str, table: str, name: str
) -> str | None:
    """Return where a consumer or an endpoint is declared, `table` being its table in the file; None
    for one that commands, the API or these pages made."""
    if managed_by == "file":
        return f"in {FILE}, as [{table}.{name}]"
    if managed_by == "code":
        found = next((task for task in tasks if task.name == name), None)
        return "in code, by a task's on=" + (
            "" if found is None else f" ({short_place(found.place)})"
        )
    return None
