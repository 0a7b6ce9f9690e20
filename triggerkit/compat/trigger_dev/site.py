"""The API below `/compat/trigger.dev`: who may call it, its paths, and its answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from triggerkit.compat.trigger_dev import idempotency, queues, realtime, runs, schedules, triggers
from triggerkit.compat.trigger_dev.answers import answer_to, refused
from triggerkit.compat.trigger_dev.call import PREFIX, SdkCall
from triggerkit.compat.trigger_dev.not_offered import sentence_about
from triggerkit.compat.trigger_dev.payloads import packets
from triggerkit.runs.client import Client
from triggerkit.tasks.task import Task
from triggerkit.web.api.management import role_of, without_values
from triggerkit.web.api.operation import Call
from triggerkit.web.api.problems import answer
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

#: What the SDK asks for without a key.
OPEN: Final = "/api/v1/timezones"

#: The major version of the SDK whose calls these are.
SDK_MAJOR: Final = "4"

Handle = Callable[[SdkCall], Awaitable[object]]


class Offered(NamedTuple):
    """A call of the SDK."""

    method: str
    path: str
    handle: Handle


# fmt: off
CALLS: Final = (
    Offered("POST", "/api/v1/tasks/{name:path}/trigger", triggers.trigger_task),
    Offered("POST", "/api/v3/batches", triggers.announce_batch),
    Offered("POST", "/api/v3/batches/{id}/items", triggers.stream_items),
    Offered("GET", "/api/v2/batches/{id}", triggers.show_batch),
    Offered("PUT", "/api/v1/packets/{name:path}", packets.announce_packet),
    Offered("PUT", "/api/v2/packets/{name:path}", packets.announce_packet),
    Offered("PUT", f"{packets.PLACE}{{id}}", packets.put_packet),
    Offered("POST", "/api/v1/idempotencyKeys/{key:path}/reset", idempotency.reset_key),
    Offered("GET", "/api/v3/runs/{id}", runs.retrieve_run),
    Offered("GET", "/api/v1/runs", runs.list_all_runs),
    Offered("POST", "/api/v2/runs/{id}/cancel", runs.cancel_one),
    Offered("POST", "/api/v1/runs/{id}/replay", runs.replay_one),
    Offered("POST", "/api/v1/runs/{id}/reschedule", runs.reschedule_one),
    Offered("GET", "/api/v1/queues", queues.list_all_queues),
    Offered("GET", "/api/v1/queues/{name}", queues.retrieve_queue),
    Offered("POST", "/api/v1/queues/{name}/pause", queues.pause_one_queue),
    Offered("POST", "/api/v1/queues/{name}/concurrency/override", queues.override_limit),
    Offered("POST", "/api/v1/queues/{name}/concurrency/reset", queues.reset_limit),
    Offered("GET", "/api/v1/schedules", schedules.list_all_schedules),
    Offered("POST", "/api/v1/schedules", schedules.create_schedule),
    Offered("GET", "/api/v1/schedules/{id}", schedules.retrieve_schedule),
    Offered("PUT", "/api/v1/schedules/{id}", schedules.update_schedule),
    Offered("DELETE", "/api/v1/schedules/{id}", schedules.remove_schedule),
    Offered("POST", "/api/v1/schedules/{id}/activate", schedules.activate_schedule),
    Offered("POST", "/api/v1/schedules/{id}/deactivate", schedules.deactivate_schedule),
    Offered("GET", OPEN, schedules.list_timezones),
    Offered("GET", "/realtime/v1/runs", realtime.refuse_subscription),
    Offered("GET", "/realtime/v1/runs/{id}", realtime.refuse_subscription),
    Offered("GET", "/realtime/v1/batches/{id}", realtime.refuse_subscription),
)
# fmt: on


class TriggerDevApi(Mount):
    """All of it; `tasks` are those that can be triggered."""

    def __init__(self, tasks: Iterable[Task[Any, Any, Any]]) -> None:
        known = tuple(tasks)
        own = [
            Route(path, _Path({call.method: call for call in calls}, known))
            for path, calls in groupby(CALLS, key=lambda call: call.path)
        ]
        super().__init__(PREFIX, routes=[*own, Route("/{rest:path}", _Path({}, known))])


class _Path:
    """Answers the requests for one path."""

    def __init__(self, calls: dict[str, Offered], tasks: Sequence[Task[Any, Any, Any]]) -> None:
        self._calls = calls
        self._tasks = tasks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        client: Client | None = request.scope.get(CLIENT_SCOPE_KEY)
        role = None if client is None else role_of(request, client.settings)
        path = request.url.path.partition(PREFIX)[2]
        if client is None or not (
            role or path == OPEN or packets.is_signed(request, client.settings)
        ):
            return _unauthorized(request)
        if role == "reader" and request.method != "GET":
            return refused(403, "the read key is for looking: use TRIGGERKIT_SECRET_KEY")
        version = request.headers.get("trigger-version", SDK_MAJOR)
        if version.partition(".")[0] != SDK_MAJOR:
            return refused(400, f"this is the API of @trigger.dev/sdk {SDK_MAJOR}, not {version}")
        offered = self._calls.get(request.method)
        if offered is None:
            # What reads streams would ask for ever after a 501.
            status = 404 if path.startswith("/realtime/") else 501
            return refused(status, sentence_about(request.method, path))
        try:
            found = await offered.handle(SdkCall(request, Call(client, self._tasks)))
        except Exception as error:
            return answer_to(error, f"{offered.method} {PREFIX}{offered.path}")
        if isinstance(found, Response):
            return found
        hides = role == "reader" and client.settings.triggerkit_hide_values
        return answer(200, without_values(found) if hides else found)


def _unauthorized(request: Request) -> Response:
    token = request.headers.get("authorization", "").partition(" ")[2]
    text = "Invalid or missing API key: the SDK's accessToken is TRIGGERKIT_SECRET_KEY"
    if token.count(".") == 2 and token.startswith("eyJ"):
        text = "public access tokens open nothing here: use TRIGGERKIT_SECRET_KEY, on a server"
    response = refused(401, text)
    response.headers["www-authenticate"] = "Bearer"
    return response
