"""The management API: finds the operation of a request, lets who has the key in, and answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, cast, get_origin

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Receive, Scope, Send

from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.task import Task
from triggerkit.web.api.openapi import describe
from triggerkit.web.api.operation import Call, DatabaseHealthOf, Given, Operation
from triggerkit.web.api.problems import HEADERS, NotFound, answer, answer_to
from triggerkit.web.api.shown import shown
from triggerkit.web.api.table import OPERATIONS, PREFIX
from triggerkit.web.auth import has_bearer, unauthorized
from triggerkit.web.body import read_body
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

#: The fields of an answer, however deep in it, that have what rows and tasks hold, and what stands
#: there where that is hidden.
HIDDEN: Final[dict[str, object]] = {
    "payload": None,
    "output": None,
    "metadata": {},
    "spans": [],
    "body": None,
    "record": None,
    "changes": None,
}

#: Largest body of a request.
MAX_BODY_BYTES = 1024 * 1024


async def openapi(call: Call) -> dict[str, Any]:  # noqa: ARG001 - every operation takes one
    """This description, in OpenAPI 3.1."""
    return describe_all()


ALL: Final = (*OPERATIONS, Operation("GET", "/openapi.json", openapi, "Describe the API"))


@cache
def describe_all() -> dict[str, Any]:
    """Return the description of the whole API, made when it is first asked for."""
    return describe(ALL, PREFIX)


#: The first parts of the paths below the prefix; what begins otherwise is the user's app's.
RESOURCES: Final = frozenset(operation.path.split("/")[1] for operation in ALL)


class Api(Mount):
    """All of ours under `/api/v1`: the management API, and `others`, such as the pull API."""

    def __init__(
        self,
        tasks: Iterable[Task[Any, Any, Any]],
        others: Sequence[BaseRoute] = (),
        database_health: DatabaseHealthOf | None = None,
    ) -> None:
        known = _Known(tuple(tasks), database_health)
        served = sorted((o for o in ALL if o.handle is not None), key=lambda o: o.path)
        own = [
            Route(path, _Path(tuple(operations), known))
            for path, operations in groupby(served, key=lambda o: o.path)
        ]
        super().__init__(PREFIX, routes=[*others, *own, Route("/{rest:path}", _Path((), known))])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is for us: the user's app may have paths under the prefix
        too."""
        match, child = super().matches(scope)
        below = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(f"{PREFIX}/")
        if match is Match.FULL and below.partition("/")[0] not in RESOURCES:
            return Match.NONE, {}
        return match, child


class _Known(NamedTuple):
    """The resources of every call."""

    tasks: Sequence[Task[Any, Any, Any]]
    database_health: DatabaseHealthOf | None


class _Path:
    """Answers the requests for one path, by the operation that has the method."""

    def __init__(self, operations: Sequence[Operation], known: _Known) -> None:
        self._operations = {operation.method: operation for operation in operations}
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        client: Client | None = request.scope.get(CLIENT_SCOPE_KEY)
        if client is None or not (role := role_of(request, client.settings)):
            refusal = unauthorized()
            refusal.headers.update(HEADERS)
            return refusal
        if role == "reader" and request.method not in ("GET", "HEAD"):
            return answer(403, {"error": "the read key is for looking: use TRIGGERKIT_SECRET_KEY"})
        if not self._operations:
            return answer(404, {"error": f"there is nothing here; see {PREFIX}/openapi.json"})
        operation = self._operations.get(request.method)  # type: ignore[call-overload]
        if operation is None:
            allowed = ", ".join(self._operations)
            response = answer(405, {"error": f"the methods of this path are {allowed}"})
            response.headers["allow"] = allowed
            return response
        try:
            hides = role == "reader" and client.settings.triggerkit_hide_values
            hides = hides and operation.handle is not openapi
            return await _performed(operation, request, Call(client, *self._known), hides=hides)
        except Exception as error:
            return answer_to(error, operation.name)


def role_of(request: Request, settings: Settings) -> Literal["owner", "reader"] | None:
    """Return what the key of a request lets its caller do: all, or look; None without a key."""
    for role, key in (
        ("owner", settings.triggerkit_secret_key),
        ("reader", settings.triggerkit_read_key),
    ):
        if key is not None and has_bearer(request, [key.get_secret_value()]):
            return cast("Literal['owner', 'reader']", role)
    return None


async def _performed(
    operation: Operation, request: Request, call: Call, *, hides: bool
) -> Response:
    given = _parameters(operation, request)
    query = (operation.query or Given).model_validate(_query(operation, request))
    if operation.query is not None:
        given["query"] = query
    if operation.body is not None:
        given["body"] = await _body(operation.body, request)
    assert operation.handle is not None
    found = await operation.handle(call, **given)
    if operation.status == 204:
        return Response(status_code=204, headers=HEADERS)
    content = shown(operation.answer, found)
    return answer(operation.status, without_values(content) if hides else content)


def without_values(part: Any) -> Any:
    """Return a part of an answer with nothing in the fields that have values."""
    if isinstance(part, list):
        return [without_values(one) for one in part]
    if isinstance(part, dict):
        return {
            name: HIDDEN[name] if name in HIDDEN else without_values(one)
            for name, one in part.items()
        }
    return part


def _query(operation: Operation, request: Request) -> dict[str, Any]:
    """Return the query's parameters; one that may be repeated as a list."""
    fields = {} if operation.query is None else operation.query.model_fields
    given = request.query_params
    return {
        name: given.getlist(name)
        if name in fields and get_origin(fields[name].annotation) is list
        else value
        for name, value in given.items()
    }


def _parameters(operation: Operation, request: Request) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, adapter in operation.parameters.items():
        text = request.path_params[name]
        try:
            given[name] = adapter.validate_python(text)
        except ValidationError:
            raise NotFound(f"{text[:80]!r} is not a valid {name}") from None
        if "\x00" in text:
            raise NotFound(f"a {name} cannot contain a NUL character")
    return given


async def _body(model: type[BaseModel], request: Request) -> BaseModel:
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return model.model_validate_json(body)
    except RecursionError:
        raise BodyRefused(400, "malformed JSON") from None
