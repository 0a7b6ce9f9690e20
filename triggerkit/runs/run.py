"""A run: one accepted execution of a task."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import randbits
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from triggerkit.state.short_key import MAX_KEY
from triggerkit.state.short_key import short_key as short_key

Status = Literal[
    "delayed", "queued", "executing", "retrying",
    "completed", "failed", "crashed", "canceled", "expired", "timed_out",
]  # fmt: skip

#: The statuses a run ends in.
FINAL: Final = frozenset({"completed", "failed", "crashed", "canceled", "expired", "timed_out"})

#: Characters of a run's id.
RUN_ID_CHARS: Final = 30

_KEYS = ("idempotency_key", "concurrency_key", "item_key")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

#: Two characters at once.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]

_RUN_ID = re.compile(f"run_[{_ALPHABET}]{{26}}")


def new_run_id() -> str:
    """`run_` and 26 characters that sort by time: 48 bits of milliseconds, 80 random bits."""
    return _encoded((time.time_ns() // 1_000_000) << 80 | randbits(80))


def _encoded(value: int) -> str:
    return "run_" + "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def first_run_id_at(seconds: float) -> str:
    """Return the least id that a run made at `seconds` since 1970 can have."""
    return _encoded(int(seconds * 1000) << 80)


def accepted_at(run_id: str) -> datetime:
    """Return when the run of an id was accepted."""
    milliseconds = 0
    for char in run_id[4:14]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(char)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def is_run_id(text: str) -> bool:
    """Return whether `text` could be a run's id."""
    return _RUN_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class RunError:
    """Why an attempt failed. Its texts are `storable`."""

    type: str
    message: str
    traceback: str

    def as_json(self) -> dict[str, str]:
        """Return the error as the runs API shows it."""
        return {"type": self.type, "message": self.message, "traceback": self.traceback}


def storable(text: str) -> str:
    """`text` with what Postgres cannot store, NUL and lone surrogates, written as escapes."""
    return text.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a trigger beside the payload. Times are in seconds.

    `priority_s` lets a run start as if it had been queued so much earlier. A run that did not start
    within `ttl_s` expires. `idempotency_ttl_s` is how long a key is remembered. `metadata` is JSON.
    One that is to `cancel_with_parent` is canceled when the run that triggered it is. Of its key,
    `concurrency_per_key` runs may go on beside each other.
    A `debounce_key` has a delayed run of its key wait anew, with the new payload unless it
    `debounce_keeps_first`, until at most `debounce_max_s` after it was made.
    """

    priority_s: int = 0
    ttl_s: float | None = None
    idempotency_ttl_s: float | None = None
    debounce_key: str | None = None
    debounce_max_s: float | None = None
    debounce_keeps_first: bool = False
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None
    parent_id: str | None = None
    traceparent: str | None = None
    replay_of: str | None = None
    awaited: bool = False
    cancel_with_parent: bool = False
    concurrency_per_key: int = 1

    def __post_init__(self) -> None:
        if self.debounce_key is not None:
            object.__setattr__(self, "debounce_key", short_key(self.debounce_key))


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to accept. `payload` is JSON; `items` counts the messages of a batch.

    `attempt` counts attempts made before, as an item of a batch, `error` the last one's; a
    `failed` run is made only to be seen: no attempt can help it. `full_keys` has the keys that are
    too long for an index, as they were given.
    """

    task: str
    queue: str
    max_attempts: int
    payload: bytes
    items: int | None = None
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    item_key: str | None = None
    source: dict[str, Any] | None = None
    delay_s: float = 0.0
    attempt: int = 0
    error: RunError | None = None
    failed: bool = False
    options: RunOptions | None = None
    full_keys: dict[str, str] | None = None
    id: str = field(default_factory=new_run_id)

    def __post_init__(self) -> None:
        for name in _KEYS:
            key = getattr(self, name)
            if key is not None and len(key) > MAX_KEY:
                object.__setattr__(self, name, short_key(key))
                object.__setattr__(self, "full_keys", {**(self.full_keys or {}), name: key})

    @property
    def status(self) -> Status:
        """The status it starts with."""
        if self.failed:
            return "failed"
        if self.delay_s > 0:
            return "retrying" if self.attempt else "delayed"
        return "queued"


@dataclass(frozen=True, slots=True)
class RunRef:
    """The answer to a trigger: the run's id and task, and whether the run existed before."""

    id: str
    task: str
    duplicate: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the handle as the webhook route answers it."""
        named: dict[str, Any] = {"id": self.id, "task": self.task}
        return {**named, "duplicate": True} if self.duplicate else named


class ReadyRun(NamedTuple):
    """A run that can be executed now: its id goes to Redis, ordered by `rank` (microseconds)."""

    task: str
    id: str
    rank: int


class ClaimedRun(NamedTuple):
    """A run given to this worker: only this attempt may complete it.

    `waits` counts attempts that use up none of `max_attempts`. `open` tells that it takes up room
    in a queue with a limit. `held_rows` are rows of which an earlier item failed and is still to be
    tried: their items in this run wait behind it. It `probes` when it alone is tried of a task that
    waits.
    """

    id: str
    seq: int
    task: str
    queue: str
    attempt: int
    max_attempts: int
    waits: int
    payload: str
    items: int | None
    concurrency_key: str | None
    item_key: str | None
    source: dict[str, Any] | None
    started_at: datetime
    open: bool = False
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = MappingProxyType({})
    traceparent: str | None = None
    held_rows: Sequence[str] = ()
    probes: bool = False

    @property
    def is_last_attempt(self) -> bool:
        """Return whether no attempt is left after this one."""
        return self.attempt - self.waits >= self.max_attempts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt of a run. `output` is JSON.

    `retry_in_s` is set when the status is `retrying`; `waited` says that the attempt asked for
    that, and uses up none of the run's; `away` that what the task calls is busy or away, so that
    the task's other runs wait, too. `spawned` are runs of single items that failed in a batch: they
    are made in the transaction that completes the batch.
    """

    run: ClaimedRun
    status: Status
    output: bytes | None = None
    error: RunError | None = None
    retry_in_s: float | None = None
    waited: bool = False
    away: bool = False
    spawned: tuple[NewRun, ...] = ()
