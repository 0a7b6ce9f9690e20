"""One call of the SDK: the request, what it works with, and the task that it names."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from starlette.requests import Request

from triggerkit.errors import ConfigurationError, UnknownTask, suggested
from triggerkit.tasks.task import Task
from triggerkit.web.api.operation import Call

#: What every path of the API begins with.
PREFIX: Final = "/compat/trigger.dev"

#: Who the audit says it was.
ACTOR = "trigger.dev sdk"

#: The id of a request, which stays the same when the SDK sends it again; and what the key begins
#: with that a run has of it.
REQUEST_ID: Final = "x-trigger-request-idempotency-key"
OF_REQUEST: Final = "request/"

#: Of a page of a list, unless it says how many, and at most.
PER_PAGE, MOST = 25, 100


class SdkCall(NamedTuple):
    """A request, and the resources to answer it with."""

    request: Request
    call: Call

    @property
    def path(self) -> dict[str, str]:
        """The parameters in its path."""
        return dict(self.request.path_params)

    @property
    def once(self) -> str | None:
        """The key of what is to be done once, however often the SDK sends the request."""
        request_id = self.request.headers.get(REQUEST_ID)
        return f"{OF_REQUEST}{request_id}" if request_id else None

    def page(self) -> tuple[int, int]:
        """Return which page of a list is asked for, and how many a page has.

        Raises:
            ConfigurationError: it is no number, or too large.
        """
        query = self.request.query_params
        found = []
        for name, default, most in (("page", 1, 10**6), ("perPage", PER_PAGE, MOST)):
            text = query.get(name, str(default))
            if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
                raise ConfigurationError(f"{name}: a number from 1 to {most}")
            found.append(int(text))
        return found[0], found[1]

    def task(self, name: str) -> Task[Any, Any, Any]:
        """Return the task of a name; one with dashes is also the Python name that it stands for.

        Raises:
            UnknownTask: there is none.
        """
        known = {task.name: task for task in self.call.tasks}
        found = known.get(name) or known.get(name.replace("-", "_"))
        if found is None:
            meant = suggested(name.replace("-", "_"), known)
            listed = ", ".join(sorted(known)) or "none"
            raise UnknownTask(f"no task is named {name!r} here{meant or ';'} tasks are {listed}")
        return found
