"""The routes of all compatible APIs, for `serve`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute

from triggerkit.compat.sequin.pull import pull_routes
from triggerkit.compat.trigger_dev.site import TriggerDevApi
from triggerkit.tasks.task import Task
from triggerkit.web.api.pull import PullApi


def compat_routes(tasks: Iterable[Task[Any, Any, Any]], pull: PullApi) -> list[BaseRoute]:
    """Return the routes below `/compat`; `pull` serves the pulled consumers."""
    return [TriggerDevApi(tasks), *pull_routes(pull)]
