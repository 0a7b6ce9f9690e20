"""For tests of tasks: made-up changes, one attempt of a task, and runs in memory with a clock.

```python
from triggerkit.testing import fake_change, run_task

def test_a_title_is_indexed():
    result = run_task(index_post, fake_change({"id": 1, "title": "One"}))
    assert result.status == "completed"
```
"""

from triggerkit.testing.changes import fake_change, fake_message
from triggerkit.testing.clock import Clock
from triggerkit.testing.one_task import arun_task, run_task
from triggerkit.testing.recorded import FailedAttempt, FailedItem, Line, RecordedRun, Span
from triggerkit.testing.runs import MemoryRuns, memory_runs

__all__ = [
    "Clock",
    "FailedAttempt",
    "FailedItem",
    "Line",
    "MemoryRuns",
    "RecordedRun",
    "Span",
    "arun_task",
    "fake_change",
    "fake_message",
    "memory_runs",
    "run_task",
]
