"""One page of the dashboard: what it is asked with, and what it answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from psycopg_pool import AsyncConnectionPool
from starlette.requests import Request

from triggerkit.settings import Settings
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.task import Task
from triggerkit.web.api.operation import Call
from triggerkit.web.dashboard.session import Session, Sessions

#: The field in which each form that was shown differs from all others.
ONCE = "once"

#: Who the audit says it was.
ACTOR = "dashboard"

#: Largest form, its most fields, and the seconds in which it has come.
MAX_FORM_BYTES = 256 * 1024
MAX_FIELDS = 1_000
FORM_S = 10.0

#: Reads what `triggerkit status` knows. It is given from above, since it looks by the checks of the
#: processes.
OverviewOf = Callable[
    [Settings, AsyncConnectionPool, Sequence[Task[Any, Any, Any]]], Awaitable[dict[str, Any]]
]


#: Makes the checks of `triggerkit check` that ask nobody but Postgres and the transport.
ChecksOf = Callable[[Settings], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Looks:
    """What pages look at by the layers above, which give it; without it they say whom to ask."""

    overview: OverviewOf | None = None
    checks: ChecksOf | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a page, by somebody who is logged in or, at the login, is not yet.

    Pages read by `call`, whose pool is their own; what they change they change by `call.client`
    likewise.
    """

    request: Request
    call: Call
    base: str
    sessions: Sessions | None
    session: Session | None
    looks: Looks
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters of the URL that are not empty, as a form sends the others too."""
        return {name: value for name, value in self.request.query_params.items() if value}

    @property
    def here(self) -> str:
        """Return the path below the dashboard, with its query."""
        path = self.request.url.path.removeprefix(self.request.scope.get("root_path", ""))
        query = self.request.url.query
        return quote(path or "/") + (f"?{query}" if query else "")

    @property
    def has_ended(self) -> bool:
        """Return whether the session is over by now, as of a page that is open for long."""
        return self.sessions is None or self.sessions.of_browser(self.request.cookies) is None

    @property
    def form_name(self) -> str | None:
        """Return a name of the form that was sent, as it was filled in, which every process gives
        it; None of one that was not shown by a page."""
        if not self.form.get(ONCE):
            return None
        told = json.dumps([self.here, sorted(self.form.items())])
        return f"form:{hashlib.sha256(told.encode()).hexdigest()[:32]}"

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def link(self, *parts: object, **query: object) -> str:
        """Return a link to a page below the dashboard."""
        path = "/".join(quote(str(part), safe="") for part in parts)
        given = {name: str(value) for name, value in query.items() if value not in (None, "")}
        return f"{self.base}/{path}" + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True, slots=True)
class Shown:
    """A page to be rendered by a template. One that `is_live` is loaded anew as things change."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class Moved:
    """A page to look at instead, and what becomes of the session's cookie: `""` forgets it."""

    to: str
    cookie: str | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """Server-sent events, which a page listens to."""

    events: AsyncIterator[bytes]


Answer = Shown | Moved | Streamed


@dataclass(frozen=True, slots=True)
class Route:
    """A path below the dashboard, shown by `get` and changed by `post`; `is_open` to those who are
    not logged in, its change `is_of_readers` also, who may only look."""

    path: str
    get: Callable[[Asked], Awaitable[Answer]] | None = None
    post: Callable[[Asked], Awaitable[Answer]] | None = None
    is_open: bool = False
    is_of_readers: bool = False

    @property
    def methods(self) -> Sequence[str]:
        """The methods that it answers."""
        return [*(["GET", "HEAD"] if self.get else []), *(["POST"] if self.post else [])]


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, the last value of each.

    Raises:
        BodyRefused: it is too large, too slow, or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BodyRefused(415, "this is no form of the dashboard")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM_BYTES:
                    raise BodyRefused(413, f"the form is larger than {MAX_FORM_BYTES} bytes")
    except TimeoutError:
        raise BodyRefused(408, f"the form took longer than {FORM_S:g} s") from None
    if body.count(b"&") >= MAX_FIELDS:
        raise BodyRefused(413, f"the form has more than {MAX_FIELDS} fields")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BodyRefused(400, "the form is not UTF-8") from None
    # Browsers end the lines of what is typed by both.
    return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}
