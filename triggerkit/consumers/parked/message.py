"""A parked message: as it is set aside, at the head of its key, and once it was tried again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from triggerkit.consumers.parked.origin import Origin

#: What a message at the head of its key can be.
HeadState = Literal["failing", "blocked", "dead"]


@dataclass(frozen=True, slots=True)
class ParkedMessage:
    """A message taken out of the way so that the others can go on.

    `body` is the message before a transform. `state` is what it is at the head of its key: None
    when it only waits behind others, for which it is tried at once should there be none. A
    message that is `blocked` or `dead` is so wherever it stands.
    """

    partition: int
    position: int
    key: str
    body: bytes
    reason: str
    state: HeadState | None = None
    status: int | None = None
    failures: int = 0
    due_in_s: float = 0.0
    origin: Origin | None = None

    def with_fault(
        self, reason: str, state: HeadState, *, failures: int, due_in_s: float = 0.0
    ) -> Self:
        """This message, which cannot be sent as it is."""
        return replace(self, reason=reason, state=state, failures=failures, due_in_s=due_in_s)


@dataclass(frozen=True, slots=True)
class Head:
    """The first parked message of a key, without its body.

    `failures` are attempts that count; `status` is the HTTP status of the last one, if any came.
    `idempotency_key` is None for what an earlier version parked.
    """

    partition: int
    position: int
    key: str
    attempts: int
    failures: int
    status: int | None
    parked_at: datetime
    idempotency_key: str | None
    due_in_s: float


@dataclass(frozen=True, slots=True)
class Tried:
    """The outcome of a retry. `state` is None when the message is done with.

    `reason` replaces the one it was parked for, unless it is None. `batch_id` is None when nothing
    was sent.
    """

    state: HeadState | None
    failures: int
    reason: str | None = None
    due_in_s: float = 0.0
    batch_id: str | None = None
    sent_at: datetime | None = None
    status: int | None = None
    error: str | None = None
