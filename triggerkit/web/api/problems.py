"""Answer errors of the management API: one place for their statuses.

An answer is `{"error": …}`, with `"detail": [{"loc", "msg"}]` where fields are wrong. It never has
a secret, a row's values or a traceback.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Sequence
from datetime import date, datetime

import orjson
import psycopg
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from triggerkit.errors import (
    CannotConnect,
    CannotDecrypt,
    ChangedMeanwhile,
    ConfigurationError,
    DeclaredElsewhere,
    EndpointConflict,
    FieldProblem,
    InvalidEndpoint,
    InvalidPayload,
    NameTaken,
    NotDurable,
    NotRetryable,
    PreflightFailed,
    TriggerkitError,
    UnknownConsumer,
    UnknownEndpoint,
    UnknownEventUser,
    UnknownMessage,
    UnknownQueue,
    UnknownRun,
    UnknownSchedule,
    UnknownTask,
    WouldLose,
)
from triggerkit.state.faults import blames_values, is_away, is_read_only
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.bulk.store import UnknownBulk

logger = logging.getLogger(__name__)

#: No answer is kept by who passes it on, or taken for anything but JSON.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

#: Most problems of fields that one answer lists.
MAX_PROBLEMS = 100


class Error(BaseModel):
    """An error."""

    error: str


class InvalidRequest(BaseModel):
    """An error, by field."""

    error: str
    detail: list[FieldProblem]


class NotFound(TriggerkitError):
    """Nothing has this name."""


#: The first class that fits gives the status.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (UnknownBulk, 404),
    (UnknownConsumer, 404),
    (UnknownEndpoint, 404),
    (UnknownEventUser, 404),
    (UnknownMessage, 404),
    (UnknownRun, 404),
    (UnknownQueue, 404),
    (UnknownSchedule, 404),
    (UnknownTask, 404),
    (InvalidPayload, 422),
    (NotRetryable, 409),
    (NameTaken, 409),
    (ChangedMeanwhile, 409),
    (EndpointConflict, 409),
    (DeclaredElsewhere, 409),
    (WouldLose, 409),
    (CannotDecrypt, 409),
    (PreflightFailed, 409),
    (CannotConnect, 503),
    (NotDurable, 503),
    (ConfigurationError, 422),
)


def answer(status: int, value: object) -> Response:
    """`value`, which orjson knows, as an answer."""
    headers = {**HEADERS, "retry-after": "1"} if status == 503 else HEADERS
    return Response(_json(value), status, headers, "application/json")


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # What Postgres stores has numbers, depths and characters that orjson does not write. One
        # row of that kind must not hide a list.
        return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def answer_to(error: Exception, where: str) -> Response:
    """Return the answer to what an operation raised; `where` names the operation, for the log."""
    if isinstance(error, BodyRefused):
        return answer(error.status, {"error": error.error})
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, psycopg.Error | PoolTimeout):
        return _database(error, where)
    for kind, status in STATUSES:
        if isinstance(error, kind):
            body: dict[str, object] = {"error": str(error)}
            if status == 422:
                body["detail"] = _details(error)
            return answer(status, body)
    if isinstance(error, TriggerkitError):
        return answer(409, {"error": str(error)})
    return _unexpected(error, where)


def _details(error: Exception) -> list[dict[str, object]]:
    if isinstance(error, InvalidPayload):
        found = error.problems[:MAX_PROBLEMS]
        return [{"loc": ["payload", *problem.loc], "msg": problem.msg} for problem in found]
    if isinstance(error, InvalidEndpoint) and error.field is not None:
        return [{"loc": [error.field], "msg": str(error)}]
    return problems_of(str(error))


def status_of(error: TriggerkitError) -> int:
    """Return the status of an answer that tells of `error`."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 409)


def problems_of(message: str, where: str | None = None) -> list[dict[str, object]]:
    """Return the fields that an error of a definition names, a line each: `name field.0: what is
    so`. `where` is the name, which may be any text where a person typed it."""
    named = r"\S+" if where is None else re.escape(where)
    found: list[dict[str, object]] = []
    for line in message.splitlines():
        match = re.match(rf"{named} ([a-z_]+(?:\.\w+)*): (.+)", line)
        if match is not None:
            parts: Sequence[str | int] = [
                int(part) if part.isdigit() else part for part in match[1].split(".")
            ]
            found.append({"loc": parts, "msg": match[2]})
    return found[:MAX_PROBLEMS]


def _invalid(error: ValidationError) -> Response:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return answer(400, {"error": "malformed JSON"})
    detail = [
        {"loc": list(p["loc"]), "msg": p["msg"].removeprefix("Value error, ")}
        for p in problems[:MAX_PROBLEMS]
    ]
    return answer(422, {"error": "Invalid request", "detail": detail})


def _database(error: psycopg.Error | PoolTimeout, where: str) -> Response:
    # The server's own messages repeat values; they stay here.
    if is_read_only(error):
        return answer(503, {"error": "the database is read-only now; try again"})
    if is_away(error):
        return answer(503, {"error": "a database does not answer; try again"})
    if blames_values(error) and not isinstance(error, psycopg.IntegrityError):
        text = "a value cannot be stored: it has a NUL character, is too long, or is out of range"
        return answer(422, {"error": text, "detail": []})
    if isinstance(error, psycopg.IntegrityError):
        return answer(409, {"error": "somebody else changed it at the same time; try again"})
    return _unexpected(error, where)


def _unexpected(error: Exception, where: str) -> Response:
    frames = "".join(traceback.format_tb(error.__traceback__))
    # Without its message, which may have values.
    logger.error("%s failed with %s; please report it\n%s", where, type(error).__name__, frames)
    return answer(500, {"error": "an error that should not happen; the log of serve has it"})
