"""The answers of the events REST API: messages, groups, errors and their statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from psycopg_pool import PoolTimeout
from starlette.responses import Response

from triggerkit.errors import CannotConnect, ConfigurationError, TriggerkitError
from triggerkit.events.groups.group import Group
from triggerkit.events.groups.service import NoOffset, NotOwned, Superseded, UnknownInstance
from triggerkit.events.kafka.faults import KafkaFault, remedy_of
from triggerkit.events.source import OffsetOutOfRange, UnknownTopic
from triggerkit.state.faults import is_away
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.kafka.basic import Refused
from triggerkit.web.kafka.given import Invalid

#: No answer is kept by who passes it on, or taken for anything but JSON.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

#: The first class that fits gives the status.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownTopic, 404),
    (UnknownInstance, 404),
    (NotOwned, 409),
    (Superseded, 409),
    (OffsetOutOfRange, 400),
    (NoOffset, 400),
    (Invalid, 400),
    (CannotConnect, 503),
    # Its settings, or what they need, are wrong: no request can mend that.
    (ConfigurationError, 503),
)

#: What is answered where there is nothing to tell.
SUCCESS = {"result": "Success", "status": 200}


def instances(group: Group) -> list[dict[str, Any]]:
    """Return the instances of a group, and which partitions each has."""
    found = []
    for instance in group.instances.values():
        owned = [place.key for place in group.owned(instance.name)]
        topics = [
            {"topic": topic, "partitions": sorted(p for name, p in owned if name == topic)}
            for topic in instance.topics
        ]
        found.append({"name": instance.name, "topics": topics})
    return found


def not_allowed(methods: Sequence[str]) -> Response:
    """Return the answer to a method that a path does not have; `methods` are those it has."""
    if not methods:
        text = (
            "events cannot be produced here: what changes in a table is an event on its topic; "
            "write to the table"
        )
        return refused(405, text, {"allow": ""})
    allowed = ", ".join(methods)
    return refused(405, f"the methods of this path are {allowed}", {"allow": allowed})


def answer_to(error: Exception) -> Response | None:
    """Return the answer to what a request raised; None where that should not have happened."""
    if isinstance(error, Refused):
        return refused(error.status, error.error, error.headers)
    if isinstance(error, BodyRefused):
        return refused(error.status, error.error)
    if isinstance(error, KafkaFault):
        return refused(503, f"{error}; {remedy_of(str(error))}")
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return refused(status, str(error))
    if isinstance(error, PoolTimeout) or is_away(error):
        return refused(503, "the state database does not answer; try again")
    if isinstance(error, TriggerkitError):
        return refused(409, str(error))
    return None


def refused(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as the API has it."""
    if status == 503:
        headers = {"retry-after": "1", **(headers or {})}
    response = answer(status, {"error": error, "status": status})
    response.headers.update(headers or {})
    return response


def answer(status: int, value: object) -> Response:
    """Return `value` as JSON."""
    return Response(orjson.dumps(value), status, HEADERS, "application/json")
