"""The webhook route: checks, parses and accepts; it answers once the runs are durable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triggerkit.delivery.http.connection import MAX_ANSWER_BYTES
from triggerkit.errors import CannotConnect, InvalidPayload, NotDurable
from triggerkit.runs.client import Client
from triggerkit.runs.door import door
from triggerkit.runs.run import NewRun, RunRef
from triggerkit.settings import Settings
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.receive.receipt import Receipt, Sender
from triggerkit.tasks.task import Task
from triggerkit.web.auth import authorized_body, unauthorized

#: Where `serve` puts its client in the ASGI scope; without it runs go through the process's door.
CLIENT_SCOPE_KEY = "triggerkit.client"

#: A request with this header is answered, but starts nothing.
TEST_HEADER = "triggerkit-test"

#: A W3C trace context, as the header `traceparent` has it.
TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class WebhookRoute(Route):
    """A Starlette route that starts runs of one task, whatever the payload says."""

    def __init__(self, path: str, task: Task[Any, Any, Any]) -> None:
        super().__init__(path, self._handle, methods=["POST"], name=f"webhook:{task.name}")
        self.task = task
        self._settings: Settings | None = None

    async def _handle(self, request: Request) -> Response:
        client: Client | None = request.scope.get(CLIENT_SCOPE_KEY)
        try:
            body = await authorized_body(request, self._known_settings(client))
            if body is None:
                return unauthorized()
            if TEST_HEADER in request.headers:
                return JSONResponse({"test": True})
            receipt = Receipt(self.task, sender_of(request.headers), body)
            runs = receipt.runs()
            handles = await _accept(client, runs) if runs else []
        except BodyRefused as refused:
            return JSONResponse({"error": refused.error}, status_code=refused.status)
        except InvalidPayload as error:
            return _invalid(error)
        except NotDurable as error:
            return JSONResponse({"error": str(error)}, 503, headers={"retry-after": "1"})
        return Response(orjson.dumps(receipt.body(handles)), media_type="application/json")

    def _known_settings(self, client: Client | None) -> Settings:
        if client is not None:
            return client.settings
        if self._settings is None:
            self._settings = Settings.load()
        return self._settings


def webhook(path: str, *, task: Task[Any, Any, Any]) -> WebhookRoute:
    """Return a route for any ASGI app: `POST path` with one message or `{"data": [message, …]}`
    starts runs of `task`, if it carries `Authorization: Bearer` and the webhook secret, or a
    signature by the webhook signing secret."""
    return WebhookRoute(path, task)


def sender_of(headers: Mapping[str, str]) -> Sender:
    """Return who sent a request; `headers` maps lower-case names to values."""
    trace = headers.get("traceparent")
    return Sender(
        batch_id=headers.get("webhook-id"),
        is_ours="triggerkit-attempt" in headers,
        traceparent=trace if trace is not None and TRACEPARENT.fullmatch(trace) else None,
        reads_bytes=MAX_ANSWER_BYTES,
    )


async def _accept(client: Client | None, runs: list[NewRun]) -> list[RunRef]:
    if client is not None:
        return await client.accept(runs)
    try:
        return await door().accept_async(runs)
    except CannotConnect as error:
        raise NotDurable from error


def _invalid(error: InvalidPayload) -> JSONResponse:
    detail = [{"loc": list(p.loc), "msg": p.msg} for p in error.problems]
    return JSONResponse({"error": "Invalid payload", "detail": detail}, status_code=422)
