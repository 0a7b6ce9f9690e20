"""The page of errors: runs that ended without success, grouped by type and place."""

from __future__ import annotations

from triggerkit.runs.admin.error_groups import MOST_RUNS, ErrorGroup, group_errors
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import Qualifier, Search, moment_of

QUALIFIERS = (Qualifier("task", "embed_posts"), Qualifier("since", "24h", ("1h", "24h", "7d")))

#: Groups on the page.
MOST_GROUPS = 100


async def show_errors(asked: Asked) -> Answer:
    """Show the groups, those with most runs first."""
    search = Search.of(asked, QUALIFIERS, {"task": [task.name for task in asked.call.tasks]})
    groups: list[ErrorGroup] = []
    since, problem = None, search.problem
    try:
        since = moment_of(search.given.get("since"))
    except ValueError as error:
        problem = f"since: {error}"
    if problem is None:
        async with asked.call.state() as state:
            groups = await group_errors(state, since=since, task=search.given.get("task"))
    values = {
        "groups": groups[:MOST_GROUPS],
        "left_out": max(0, len(groups) - MOST_GROUPS),
        "most": MOST_RUNS,
        "search": search,
        "problem": problem,
    }
    return Shown("errors.html", "Errors", values, 200 if problem is None else 422)


ROUTES = (Route("/errors", show_errors),)
