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
    from triggerkit.errors import AbortRun, RetryAfter, TriggerkitError
    from triggerkit.message import UNCHANGED, BatchResult, Change, ItemFailure, Metadata
    from triggerkit.runs.run import Handle
    from triggerkit.web.webhook import webhook
    from triggerkit.worker.task import Retry, Task, task

__all__ = [
    "UNCHANGED",
    "AbortRun",
    "BatchResult",
    "Change",
    "Handle",
    "ItemFailure",
    "Metadata",
    "Retry",
    "RetryAfter",
    "Task",
    "TriggerkitError",
    "changes",
    "rows",
    "task",
    "webhook",
]

# Imported when first asked for: the processes import this package too, and none needs it all.
_MODULES = {
    "consumers.definition": ("changes", "rows"),
    "errors": ("AbortRun", "RetryAfter", "TriggerkitError"),
    "message": ("UNCHANGED", "BatchResult", "Change", "ItemFailure", "Metadata"),
    "runs.run": ("Handle",),
    "web.webhook": ("webhook",),
    "worker.task": ("Retry", "Task", "task"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"triggerkit.{module}"), name)
    raise AttributeError(f"module 'triggerkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
