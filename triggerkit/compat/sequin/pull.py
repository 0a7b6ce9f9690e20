"""Sequin's pull API over the pulled consumers: receive by GET or POST, ack, nack.

Each message is `{"ack_id": …, "data": {record, changes, action, metadata}}`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from triggerkit.consumers.pull.service import Puller
from triggerkit.web.api.pull import MAX_BODY_BYTES, Ack, PullApi, Receive, done, parsed
from triggerkit.web.body import read_body

PREFIX: Final = "/compat/sequin/api"

#: What they were called first, and are called now.
KINDS: Final = ("http_pull_consumers", "sequin_streams")

_ACK_ID: Final = b'{"ack_id":"'
_TRANSFORMED: Final = b'"message":'


class SequinReceive(Receive):
    """A request for messages; older clients call the batch's size otherwise."""

    batch_size: int = Field(
        1, ge=1, le=1000, validation_alias=AliasChoices("batch_size", "max_batch_size")
    )


def pull_routes(pull: PullApi) -> list[BaseRoute]:
    """Return the routes; `pull` serves the consumers."""
    return [
        Route(f"{PREFIX}/{kind}/{{name}}/{verb}", pull.answering(handle), methods=methods)
        for kind in KINDS
        for verb, handle, methods in (
            ("receive", partial(_receive, pull), ["GET", "POST"]),
            ("ack", _ack, ["POST"]),
            ("nack", _nack, ["POST"]),
        )
    ]


def with_data(message: bytes) -> bytes:
    """Return a received message with all but its `ack_id` under `data`."""
    ack_id, _, rest = message.removeprefix(_ACK_ID).partition(b'",')
    if rest.startswith(_TRANSFORMED):
        # What a transform made takes the message's place.
        return b'%b%b","data":%b}' % (_ACK_ID, ack_id, rest.removeprefix(_TRANSFORMED)[:-1])
    return b'%b%b","data":{%b}' % (_ACK_ID, ack_id, rest)


async def _receive(pull: PullApi, request: Request, puller: Puller) -> Response:
    given = await _given(request)
    received = await pull.received(request, puller, given)
    body = b'{"data":[%b]}' % b",".join(map(with_data, received.messages))
    return Response(body, media_type="application/json")


async def _given(request: Request) -> SequinReceive:
    raw = await read_body(request, MAX_BODY_BYTES, of_any_type=True)
    if request.method == "POST":
        return SequinReceive.model_validate_json(raw or b"{}")
    query: dict[str, Any] = dict(request.query_params)
    wait_for = query.get("wait_for")
    if isinstance(wait_for, str) and wait_for.isascii() and wait_for.isdigit():
        query["wait_for"] = int(wait_for[:12])
    return SequinReceive.model_validate(query)


async def _ack(request: Request, puller: Puller) -> Response:
    given = await parsed(request, Ack)
    return done(await puller.ack(request.path_params["name"], given.ack_ids))


async def _nack(request: Request, puller: Puller) -> Response:
    given = await parsed(request, Ack)
    return done(await puller.nack(request.path_params["name"], given.ack_ids, 0.0))
