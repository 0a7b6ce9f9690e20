"""What `triggerkit status` tells."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from triggerkit.consumers.health import consumer_health
from triggerkit.errors import TriggerkitError
from triggerkit.settings import STATE_DIR, Project, Settings
from triggerkit.state.connect import connect
from triggerkit.worker.registry import load_tasks


async def read_status(
    project: Project, running: dict[str, Any] | None, show_secrets: bool
) -> dict[str, Any]:
    """The status of the project: of a running `dev` when there is one, else of what is set."""
    settings = Settings.load(project.folder)
    consumers: list[dict[str, Any]] = []
    problem: str | None = None
    try:
        async with await connect(settings.state_dsn, "triggerkit status") as state:
            consumers = [asdict(health) for health in await consumer_health(state)]
    except (TriggerkitError, psycopg.Error) as error:
        problem = str(error)
    try:
        tasks = sorted(load_tasks(project))
    except TriggerkitError as error:
        tasks, problem = [], str(error)
    return {
        "ready": problem is None and bool(running and running["ready"]),
        "url": running["url"] if running else settings.public_url,
        "dashboard_url": f"{running['url'] if running else settings.public_url}/dashboard/",
        "database_url": _shown(settings.database_url, show_secrets),
        "redis_url": _shown(settings.redis_url, show_secrets),
        "state_dir": str(running["state_dir"] if running else Path(project.folder) / STATE_DIR),
        "processes": running["processes"] if running else [],
        "consumers": consumers,
        "tasks": tasks,
        "problem": problem,
    }


def _shown(secret: Any, show_secrets: bool) -> str:
    """A connection string without its password, unless it is asked for."""
    if secret is None:
        return ""
    url = str(secret.get_secret_value())
    if show_secrets:
        return url
    scheme, separator, rest = url.partition("://")
    if not separator:
        parts: dict[str, Any] = conninfo_to_dict(url)
        parts.pop("password", None)
        return make_conninfo(**parts)
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    user = userinfo.partition(":")[0]
    return f"{scheme}://{user}{at}{host}{slash}{path}"
