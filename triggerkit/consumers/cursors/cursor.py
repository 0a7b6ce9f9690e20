"""A consumer's place in the log, and the outcome of an attempt from there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime


class CursorMoved(Exception):
    """Another session moved or removed the cursor: deliveries from it do not count."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A consumer's place in one partition, and the batch whose outcome is not known yet.

    All up to and including `position` is done. `batch_id` and `batch_last` are set from before an
    attempt is sent until its outcome is noted; `attempt` counts the attempts of that batch, and
    `settled` are the positions up to `batch_last` that were set aside when it was made. `version`
    and `stored_position` are of the row as it is stored. `owner` is the claim of the process that
    has the partition, where several deliver.
    """

    consumer_id: int
    partition: int
    position: int
    batch_id: str | None
    batch_last: int | None
    attempt: int
    settled: list[int]
    version: str
    stored_position: int
    owner: str | None = None

    def passed(self, position: int) -> Cursor:
        """Return the cursor past entries that are not wanted; only memory knows of it."""
        return replace(self, position=position)

    def ended(self, position: int) -> Cursor:
        """Return the cursor stored at `position` without a batch under way."""
        return replace(
            self,
            position=position,
            stored_position=position,
            batch_id=None,
            batch_last=None,
            attempt=0,
            settled=[],
        )


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The outcome of one attempt. `status` is the HTTP status, None when no answer came.

    `move_to` is where the cursor goes: None while the batch is to be sent again.
    """

    first: int
    last: int
    batch_id: str
    attempt: int
    messages: int
    sent_at: datetime
    status: int | None
    error: str | None
    move_to: int | None
