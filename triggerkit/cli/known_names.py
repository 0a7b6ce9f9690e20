"""Say that an option names what there is not: a filter by it finds nothing, and looks right."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final

import psycopg

from triggerkit.errors import TriggerkitError, unknown_name
from triggerkit.project import Project
from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.queues import list_queues
from triggerkit.tasks.registry import load_tasks

#: The names that the state database has, by what they are names of.
_STORED: Final = {
    "task": """
SELECT unnest(tasks) FROM triggerkit.workers UNION SELECT task FROM triggerkit.schedules ORDER BY 1
""",
    "consumer": "SELECT name FROM triggerkit.consumers ORDER BY 1",
    "schedule": "SELECT name FROM triggerkit.schedules ORDER BY 1",
    "table": """
SELECT DISTINCT jsonb_array_elements_text(definition -> 'tables') FROM triggerkit.consumers
ORDER BY 1
""",
}

#: The fields of a filter that are names.
NAMES: Final = ("task", "queue", "consumer", "table", "schedule")


async def warn_of_unknown(state: psycopg.AsyncConnection, wanted: RunFilter) -> None:
    """Tell of the names of a filter that found no run, where nothing has them: no run either."""
    for field in NAMES:
        name = getattr(wanted, field)
        if name is None or name in (known := await _known(state, field)):
            continue
        found, _ = await list_runs(state, replace(RunFilter(), **{field: name}), limit=1)
        if not found:
            warn(field, name, known)


async def warn_of_unknown_consumer(state: psycopg.AsyncConnection, name: str | None) -> None:
    """Tell of a consumer that there is not."""
    if name is not None and name not in (known := await _known(state, "consumer")):
        warn("consumer", name, known)


def warn(kind: str, name: str, known: list[str]) -> None:
    """Tell that nothing of a kind has a name, beside what a program reads."""
    print(f"warning: {unknown_name(kind, name, known)}", file=sys.stderr)


async def _known(state: psycopg.AsyncConnection, field: str) -> list[str]:
    names = _of_project(field)
    if field == "queue":
        names |= {queue.name for queue in await list_queues(state)}
    else:
        cursor = await state.execute(_STORED[field])
        names |= {name for (name,) in await cursor.fetchall()}
    return sorted(names)


def _of_project(field: str) -> set[str]:
    """Return the names that the project's tasks have; none where they cannot be imported."""
    if field not in ("task", "queue"):
        return set()
    try:
        tasks = load_tasks(Project.load()).values()
    except TriggerkitError:
        return set()
    return {task.name if field == "task" else task.queue for task in tasks}
