"""A row changes in Postgres, a Python task runs.

```python
from triggerkit import Change, rows, task

@task(on=rows("public.posts", when_changed=["title", "body"]))
def index_post(change: Change[Post]) -> None: ...
```
"""

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
