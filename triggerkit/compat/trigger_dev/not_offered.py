"""What the SDK can call and is not offered, each with what to do instead."""

from __future__ import annotations

import re
from typing import Final

#: By what a path begins with, below the prefix.
_SENTENCES: Final = (
    (
        r"/realtime/|/api/v1/(runs/realtime/)?packets/",
        "Realtime is not offered: ask for a run by runs.retrieve, or runs.poll",
    ),
    (
        r"/(engine/|api/v1/waitpoints)",
        (
            "waitpoints are not offered: a Python task waits by trigger_and_wait, or is triggered "
            "with a delay"
        ),
    ),
    (r"/api/v1/runs/[^/]+/(tags|metadata)", "tags and metadata are set by trigger and by the task"),
    (r"/api/v1/runs/[^/]+/", "events and traces of runs are on the dashboard, and in /api/v1/runs"),
    (r"/api/v1/projects/[^/]+/envvars", "environment variables are those of the processes"),
    (r"/api/v1/projects/", "there is one project, without a reference: leave it out"),
    (r"/api/v[12]/tasks/([^/]+/)?batch", "batches are taken from @trigger.dev/sdk 4.3 and later"),
    (r"/api/v1/bulk-actions", "bulk actions are the dashboard's, and of `triggerkit runs`"),
    (r"/api/v1/deployments", "nothing is deployed here: workers run the code beside them"),
)


def sentence_about(method: str, path: str) -> str:
    """Return why a call is not offered, and what to do."""
    for begins, sentence in _SENTENCES:
        if re.match(begins, path):
            return f"{sentence}; docs/compat.md has what is offered"
    return f"{method} {path[:200]} is not offered; docs/compat.md has what is"
