"""The answer to "why?": one conclusion with its remedy, and the steps that led there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

Code = Literal[
    # The change is not in the log.
    "slot_missing", "slot_lost", "not_published", "gap", "stream_not_running", "not_captured_yet",
    "backfill_pending", "backfill_paused", "backfill_failed", "before_consumer", "not_in_log",
    "row_unknown", "no_consumer", "not_applied",
    # Its consumer does not want it, or did not get it.
    "filtered", "when_changed", "action_not_wanted", "passed",
    # It waits at its consumer.
    "consumer_paused", "endpoint_disabled", "tunnel_away", "endpoint_down",
    "endpoint_unauthorized", "endpoint_failing", "consumer_failing", "parked", "waiting_behind",
    "superseded", "delivering", "waiting_for_delivery", "to_be_pulled", "leased",
    # Its run does not execute, or ended without success.
    "run_delayed", "key_held", "queue_paused", "queue_limited", "no_worker", "no_worker_for_task",
    "api_away", "retrying", "transport_away", "workers_busy", "executing", "failed", "crashed",
    "timed_out", "canceled", "expired",
    # It is done.
    "effect_missing", "effect_stale", "up_to_date", "no_text", "completed", "delivered",
]  # fmt: skip

#: What is well, and needs nobody.
DONE: Final[frozenset[Code]] = frozenset({"up_to_date", "no_text", "completed", "delivered"})

#: What says nothing when no worker is alive.
NEEDS_WORKER: Final[frozenset[Code]] = frozenset(
    {"executing", "workers_busy", "transport_away", "no_worker_for_task"}
)

#: What is as it was declared to be.
UNWANTED: Final[frozenset[Code]] = frozenset({"filtered", "when_changed", "action_not_wanted"})

#: What goes on by itself.
UNDER_WAY: Final[frozenset[Code]] = frozenset(
    {
        "not_captured_yet", "backfill_pending", "delivering", "waiting_for_delivery", "leased",
        "run_delayed", "workers_busy", "executing",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, in one sentence. `remedy` is a command or SQL that mends it, None where none does; what
    is to be done beside it stands behind `#`."""

    code: Code
    conclusion: str
    remedy: str | None = None

    @property
    def rank(self) -> int:
        """Return how early it is told of several: what needs somebody first."""
        for rank, codes in ((3, DONE), (2, UNWANTED), (1, UNDER_WAY)):
            if self.code in codes:
                return rank
        return 0


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to the row on its way. `at` is None where its time is not known."""

    at: datetime | None
    what: str
    detail: str | None = None
    consumer: str | None = None
    run: str | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked about. What is not known of it is None."""

    table: str | None = None
    key: Sequence[str] | None = None
    position: int | None = None
    run: str | None = None
    idempotency_key: str | None = None
    consumer: str | None = None

    @property
    def text(self) -> str:
        """Return it in a few words."""
        if self.run is not None:
            return self.run
        if self.table is None:
            return f"position {self.position}"
        row = f"{self.table} {' '.join(self.key or ())}"
        return row if self.position is None else f"{row} (position {self.position})"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer. `steps` are the newest first. The log was looked through from position
    `searched_from` on; None where it was not searched."""

    subject: Subject
    conclusion: str
    code: Code
    remedy: str | None
    steps: Sequence[Step]
    searched_from: int | None
