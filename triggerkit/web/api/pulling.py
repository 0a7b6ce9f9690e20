"""Describe the pull API; `pull.py` serves it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from triggerkit.web.api.operation import Operation
from triggerkit.web.api.pull import Ack, Extend, Nack, Receive


class Message(BaseModel):
    """A message and the id by which it is acknowledged."""

    ack_id: str
    record: dict[str, Any] | None
    changes: dict[str, Any] | None
    action: str
    metadata: dict[str, Any]


class TransformedMessage(BaseModel):
    """A message as the consumer's `transform` made it."""

    ack_id: str
    message: Any


class Messages(BaseModel):
    """Messages that are leased to the caller."""

    data: list[Message | TransformedMessage]


class Done(BaseModel):
    """It is done. `stale` has the ids whose lease is gone: their messages come again, or are done
    already; it is left out when there are none."""

    success: bool
    stale: list[str] = []


def _pulled(verb: str, body: type[BaseModel], answer: type[BaseModel], *told: str) -> Operation:
    types = {"name": str, "body": body, "return": answer}
    summary, about = told
    path = f"/consumers/{{name}}/{verb}"
    return Operation("POST", path, None, summary, errors=(409,), about=about, types=types)


OPERATIONS: Final = (
    _pulled(
        "receive",
        Receive,
        Messages,
        "Receive messages",
        "Take messages of a consumer without an endpoint under a lease; with `wait_for`, in "
        'milliseconds or such as "60s", wait until there is one.',
    ),
    _pulled(
        "ack",
        Ack,
        Done,
        "Acknowledge messages",
        "Note messages as done; they are not handed out again.",
    ),
    _pulled(
        "nack",
        Nack,
        Done,
        "Hand messages back",
        "Hand messages back; they are handed out again after `delay`, in milliseconds or such as "
        '"60s".',
    ),
    _pulled(
        "extend",
        Extend,
        Done,
        "Hold messages longer",
        "Let leases last at least `seconds` from now.",
    ),
)
