"""A row changes in Postgres, a Python task runs.

```python
from triggerkit import Change, rows, task

@task(on=rows("public.posts", when_changed=["title", "body"]))
def index_post(change: Change[Post]) -> None: ...
```
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triggerkit.consumers.definition import changes, rows
    from triggerkit.errors import AbortRun, RetryAfter, RunFailed, TriggerkitError
    from triggerkit.message import UNCHANGED, BatchResult, Change, ItemFailure, Metadata
    from triggerkit.runs.schedules import Cron, Tick
    from triggerkit.tasks.context import RunContext, current_run, span
    from triggerkit.tasks.declare import task
    from triggerkit.tasks.handle import Handle, Run
    from triggerkit.tasks.queue import Queue
    from triggerkit.tasks.retry import Retry
    from triggerkit.tasks.task import Task
    from triggerkit.tasks.triggering import Debounce, Item
    from triggerkit.tasks.verification import Mismatch
    from triggerkit.web.webhook import webhook

__all__ = [
    "UNCHANGED",
    "AbortRun",
    "BatchResult",
    "Change",
    "Cron",
    "Debounce",
    "Handle",
    "Item",
    "ItemFailure",
    "Metadata",
    "Mismatch",
    "Queue",
    "Retry",
    "RetryAfter",
    "Run",
    "RunContext",
    "RunFailed",
    "Task",
    "Tick",
    "TriggerkitError",
    "changes",
    "current_run",
    "rows",
    "span",
    "task",
    "webhook",
]

# Imported when first asked for: the processes import this package too, and none needs it all.
_MODULES = {
    "consumers.definition": ("changes", "rows"),
    "errors": ("AbortRun", "RetryAfter", "RunFailed", "TriggerkitError"),
    "message": ("UNCHANGED", "BatchResult", "Change", "ItemFailure", "Metadata"),
    "runs.schedules": ("Cron", "Tick"),
    "web.webhook": ("webhook",),
    "tasks.context": ("RunContext", "current_run", "span"),
    "tasks.declare": ("task",),
    "tasks.handle": ("Handle", "Run"),
    "tasks.queue": ("Queue",),
    "tasks.retry": ("Retry",),
    "tasks.task": ("Task",),
    "tasks.triggering": ("Debounce", "Item"),
    "tasks.verification": ("Mismatch",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"triggerkit.{module}"), name)
    raise AttributeError(f"module 'triggerkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
