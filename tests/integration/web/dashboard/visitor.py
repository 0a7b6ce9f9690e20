"""Somebody at a browser: keeps the cookie, follows redirects when asked to, and reads pages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.integration.serving import serving
from tests.integration.web.api.described import ENCRYPTION_KEY, KEY
from triggerkit.settings import Settings
from triggerkit.supervisor.health import database_health
from triggerkit.supervisor.serve import looks_by
from triggerkit.tasks.registry import declared_consumers
from triggerkit.tasks.task import Task
from triggerkit.web.application import Application


@dataclass(frozen=True)
class Seen:
    """An answer."""

    status: int
    headers: dict[str, str]
    html: str

    @property
    def text(self) -> str:
        """What a reader sees: without tags, in single spaces."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.html)).split())

    @property
    def links(self) -> list[str]:
        """Where its links, forms and stylesheets lead."""
        return [html.unescape(to) for to in re.findall(r'(?:href|action)="([^"]*)"', self.html)]

    @property
    def csrf(self) -> str:
        """The token of its forms."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.html)
        assert found is not None, self.text
        return found[1]

    @property
    def proof(self) -> dict[str, str]:
        """The fields that its first form in the page proper shows itself by."""
        _, _, main = self.html.partition("<main")
        found = re.search(r'name="csrf" value="([^"]+)"><input type="hidden" name="once" '
                          r'value="([^"]+)"', main)  # fmt: skip
        assert found is not None, self.text
        return {"csrf": found[1], "once": found[2]}


@dataclass
class Visitor:
    """A visitor of the dashboard at `port`, below `base`."""

    port: int
    base: str = "/dashboard"
    cookie: str | None = None
    #: Does what the process does as it is about to end.
    stop: Callable[[], None] = lambda: None
    set_cookie: str = field(default="", init=False)

    @property
    def origin(self) -> str:
        """Where its pages come from."""
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: str | None = None, **headers: str | None
    ) -> Seen:
        """Make a request; a header that is None is not sent, an underscore stands for a dash."""
        given = {"cookie": self.cookie} if self.cookie else {}
        if body is not None:
            given["content-type"] = "application/x-www-form-urlencoded"
        given |= {name.replace("_", "-"): value for name, value in headers.items() if value}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            text = response.read().decode()
        finally:
            connection.close()
        if "set-cookie" in found:
            self.set_cookie = found["set-cookie"]
            value = self.set_cookie.partition(";")[0]
            self.cookie = value if value.partition("=")[2].strip('"') else None
        return Seen(response.status, found, text)

    def get(self, path: str, status: int = 200, **headers: str) -> Seen:
        """Look at a page below the dashboard."""
        seen = self.request("GET", f"{self.base}{path}", **headers)
        assert seen.status == status, f"{seen.status}: {seen.text}"
        return seen

    def submit(self, path: str, form: dict[str, str] | None = None, **headers: str | None) -> Seen:
        """Send a form as one of our pages does."""
        given = {"origin": self.origin, **headers}
        return self.request("POST", f"{self.base}{path}", urlencode(form or {}), **given)

    def act(self, path: str) -> Seen:
        """Send a form with the token of the session."""
        return self.submit(path, {"csrf": self.get("/runs").csrf})

    def log_in(self) -> Visitor:
        """Log in by the key."""
        seen = self.submit("/login", {"key": KEY})
        assert seen.status == 303, seen.text
        return self

    def follow(self, seen: Seen) -> Seen:
        """Look at where an answer leads."""
        assert seen.status == 303, seen.text
        to = urlsplit(seen.headers["location"])
        return self.request("GET", to.path + (f"?{to.query}" if to.query else ""))


def keyed(settings: Settings, **given: str) -> Settings:
    """Settings with the keys of the tests, and others as given."""
    keys = {"TRIGGERKIT_SECRET_KEY": KEY, "TRIGGERKIT_ENCRYPTION_KEY": ENCRYPTION_KEY}
    return Settings.parse({**settings.environment(), **keys, **given})


def application(settings: Settings, tasks: Sequence[Task[Any, Any, Any]] = ()) -> Application:
    """The application as `serve` makes it."""
    declared = declared_consumers({task.name: task for task in tasks})
    return Application(settings, tasks, None, database_health, looks_by(lambda: declared))


@contextmanager
def dashboard(
    settings: Settings, tasks: Sequence[Task[Any, Any, Any]] = (), **given: str
) -> Iterator[Visitor]:
    """A visitor, not logged in, of a served application."""
    served = application(keyed(settings, **given), tasks)
    with serving(served) as site:
        yield Visitor(site.port, stop=served.stop_waiting)
