"""The served compatible APIs, and calls of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import SecretStr

from tests.integration.serving import Answer, Site, serving
from triggerkit.compat.routes import compat_routes
from triggerkit.settings import Settings
from triggerkit.tasks.task import Task
from triggerkit.web.application import Application

KEY = "a secret key for the tests alone"
READ_KEY = "a read key for the tests alone, too"


@dataclass(frozen=True)
class CompatSite:
    """A running application, by its compatible APIs."""

    site: Site

    @property
    def trigger_dev(self) -> str:
        """The `baseURL` of Trigger.dev's SDK."""
        return f"http://127.0.0.1:{self.site.port}/compat/trigger.dev"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a request with the key; a header's name has underscores for its hyphens."""
        given = {"authorization": f"Bearer {KEY}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        if raw is not None:
            given.setdefault("content-type", "application/json")
        return self.site.request(method, f"/compat/{path}", raw, given)

    def sdk(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Call what the SDK does."""
        return self.call(method, f"trigger.dev{path}", body, **headers)

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Call what the SDK does, which has to succeed."""
        answer = self.sdk(method, path, body, **headers)
        assert answer.status == 200, answer
        return answer.json


@contextmanager
def compat_site(
    settings: Settings, tasks: Sequence[Task[Any, Any, Any]] = (), **others: Any
) -> Iterator[CompatSite]:
    """Serve the APIs, with a key; `others` are more settings."""
    keys = {"triggerkit_secret_key": SecretStr(KEY), "triggerkit_read_key": SecretStr(READ_KEY)}
    keyed = settings.model_copy(update={**keys, **others})
    with serving(Application(keyed, tasks, None, others=compat_routes)) as site:
        yield CompatSite(site)
