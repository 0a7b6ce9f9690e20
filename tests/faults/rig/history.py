"""What a fault run leaves behind for the checker: what was committed, what was received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Op = Literal["insert", "update", "delete"]

#: What a change is, wherever it is seen: its key, its operation, its version.
What: TypeAlias = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Committed:
    """One row's change as the trigger noted it, in its own transaction.

    `version` is the row's version after the change (before it, for a delete); versions are never
    used twice. `required` is false for what was committed before the consumer existed.
    """

    op_id: int
    key: str
    version: int
    op: Op
    xid: int
    hash: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of one attempt, as the receiver wrote it down. Times are monotonic seconds.

    `status` is what the receiver answered, None when it answered nothing; `answered` is false when
    the answer was lost on purpose, so that the sender cannot know of it.
    """

    id: str
    key: str
    lsn: int
    idx: int
    version: int
    action: str
    hash: str
    xid: int | None
    batch_id: str
    batch_hash: str
    attempt: int
    started_at: float
    ended_at: float
    status: int | None
    answered: bool = True

    @property
    def place(self) -> tuple[int, int]:
        """Where the change stands in its database's history."""
        return self.lsn, self.idx

    @property
    def accepted(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class AckSample:
    """The slot's confirmed LSN, and the last commit LSN in the log, read after it."""

    confirmed_lsn: int
    logged_lsn: int


@dataclass(frozen=True, slots=True)
class Effect:
    """One time a task began its effect for one message."""

    key: str
    lsn: int
    idx: int
    version: int

    @property
    def place(self) -> tuple[int, int]:
        """Where the change stands in its database's history."""
        return self.lsn, self.idx


@dataclass(frozen=True, slots=True)
class History:
    """A whole run. `rows` maps the keys of the table to (version, hash) when all was quiet.

    `commit_lsns` gives the commit LSN of each transaction by its id, as a slot of the test's own
    tells it. `parked` maps the ids of messages set aside to what they tell of. `effect_rows` maps
    the keys that the task wrote, less those it deleted, to the hash it wrote; None where no task
    ran.
    """

    committed: list[Committed]
    delivered: list[Delivery]
    rows: Mapping[str, tuple[int, str]]
    commit_lsns: Mapping[int, int] = field(default_factory=dict)
    samples: list[AckSample] = field(default_factory=list)
    parked: Mapping[str, What] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    effect_rows: Mapping[str, str] | None = None
    drained_s: float | None = 0.0
    slot_lag_bytes: int = 0


@dataclass(frozen=True)
class Bounds:
    """What a run may show at most, by the faults that were made."""

    repeats: int = 0
    effect_repeats: int = 0
    drain_s: float = 60.0
    #: A segment of the WAL: what nobody here reads is confirmed every ten seconds.
    slot_lag_bytes: int = 16 * 1024 * 1024
