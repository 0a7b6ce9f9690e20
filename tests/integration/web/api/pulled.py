"""Calls of the pull API, as a consumer makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.integration.consumers.pull.pulling import Pulling, pulling
from tests.integration.serving import Answer, Site, serving
from tests.integration.web.api.described import KEY
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.web.application import Application

AUTHORIZED = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def post(site: Site, operation: str, body: Any, name: str = "items", **headers: str) -> Answer:
    """Make a call of a pulled consumer."""
    given = {**AUTHORIZED, **headers}
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return site.request("POST", f"/api/v1/consumers/{name}/{operation}", raw, given)


async def call(site: Site, operation: str, **body: Any) -> Any:
    """Make a call that must succeed, beside others."""
    answer = await asyncio.to_thread(post, site, operation, body)
    assert answer.status == 200, answer
    return answer.json


@asynccontextmanager
async def pulled_site(settings: Settings, **options: Any) -> AsyncIterator[tuple[Pulling, Site]]:
    """A pulled consumer, and the application that serves it."""
    async with pulling(settings.state_dsn, changes("items", **options)) as pull:
        with serving(Application(settings, [], None)) as site:
            yield pull, site
