"""The API of a served application, each answer of which is held against its description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from jsonschema import Draft202012Validator

from tests.integration.serving import Answer, Site, serving
from triggerkit.settings import Settings
from triggerkit.supervisor.health import database_health
from triggerkit.tasks.task import Task
from triggerkit.web.api.management import describe_all
from triggerkit.web.application import Application

KEY = "a secret key for the tests alone"

#: 32 bytes in base64: what is stored of endpoints is encrypted with it.
ENCRYPTION_KEY = "dGhpcyBpcyBhIGtleSBvZiB0aGlydHktdHdvIGJ5dGU="

TEMPLATES = {
    path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in describe_all()["paths"]
}


@dataclass
class ApiSite:
    """A running application, by its API. `texts` are the bodies of all answers."""

    site: Site
    texts: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a request with the key; what is answered must be as described."""
        given = {"authorization": f"Bearer {KEY}", **headers}
        raw = None
        if body is not None:
            given.setdefault("content-type", "application/json")
            raw = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = self.site.request(method, f"/api/v1{path}", raw, given)
        self.texts.append(f"{answer.json} {answer.headers}")
        hold(method, urlsplit(f"/api/v1{path}").path, answer)
        return answer

    def get(self, path: str) -> Any:
        """What is there."""
        return self.done("GET", path)

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request that has to succeed."""
        answer = self.call(method, path, body)
        assert answer.status < 300, answer
        return answer.json


def operations() -> Iterator[tuple[str, str]]:
    """Every method and path that is described."""
    for path, methods in describe_all()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{\w+\}", "1", path)


def hold(method: str, path: str, answer: Answer) -> None:
    """Hold an answer of a described operation against its description."""
    description = describe_all()
    # The literal path first: `/runs/{id}` also fits others.
    found = [template for template, pattern in TEMPLATES.items() if pattern.fullmatch(path)]
    template = path if path in TEMPLATES else next(iter(found), None)
    if template is None or method.lower() not in description["paths"][template]:
        assert answer.status in (401, 404, 405), answer
        return
    responses = description["paths"][template][method.lower()]["responses"]
    assert str(answer.status) in responses, f"{method} {path} answered {answer}"
    content = responses[str(answer.status)].get("content")
    if content is None:
        assert answer.json is None
        return
    schema = {**content["application/json"]["schema"], "components": description["components"]}
    Draft202012Validator(schema).validate(answer.json)


@contextmanager
def api(
    settings: Settings, tasks: Sequence[Task[Any, Any, Any]] = (), **given: str
) -> Iterator[ApiSite]:
    """The application of `serve` with a key for its API; `given` are other settings."""
    values = settings.environment()
    keys = {"TRIGGERKIT_SECRET_KEY": KEY, "TRIGGERKIT_ENCRYPTION_KEY": ENCRYPTION_KEY}
    parsed = Settings.parse({**values, **keys, **given})
    with serving(Application(parsed, tasks, None, database_health)) as site:
        yield ApiSite(site)
