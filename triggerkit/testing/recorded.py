"""A run in memory, with all that can be seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from triggerkit.message import Change
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.run import FINAL, ClaimedRun, NewRun, Outcome, RunError, RunOptions, Status
from triggerkit.tasks.task import Task


class Line(NamedTuple):
    """A line that a run printed or logged. `level` is a logging level, `stdout` or `stderr`."""

    text: str
    level: str
    attributes: dict[str, Any]


class Span(NamedTuple):
    """A span of a run. `seconds` is how long it took, `error` what ended it."""

    name: str
    attributes: dict[str, Any]
    error: str | None
    seconds: float


class FailedItem(NamedTuple):
    """A change of a batch that failed alone: its row's key, why, and whether it is tried again."""

    key: str
    error: RunError
    is_retried: bool


class FailedAttempt(NamedTuple):
    """An attempt that did not succeed."""

    attempt: int
    error: RunError | None


@dataclass(eq=False, slots=True)
class RecordedRun:
    """One run. Its attributes tell how it is now; times are the clock's."""

    task: Task[Any, Any, Any]
    new: NewRun
    seq: int
    created_at: datetime
    status: Status
    attempt: int
    rank: float
    #: Whether it waits for earlier runs of its concurrency key.
    is_blocked: bool = False
    waits: int = 0
    priority_s: int = 0
    #: Whether it is to be canceled once its attempt has ended.
    is_canceled: bool = False
    payload_json: bytes = b""
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: Any = None
    error: RunError | None = None
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    failed_items: list[FailedItem] = field(default_factory=list)
    failed_attempts: list[FailedAttempt] = field(default_factory=list)
    #: The runs that it triggered.
    triggered: list[RecordedRun] = field(default_factory=list)
    entries: list[JournalEntry] = field(default_factory=list, repr=False)

    @property
    def id(self) -> str:
        """Its id."""
        return self.new.id

    @property
    def options(self) -> RunOptions:
        """Return the options it was triggered with."""
        return self.new.options or RunOptions()

    @property
    def is_finished(self) -> bool:
        """Return whether it has ended, with or without success."""
        return self.status in FINAL

    @property
    def payload(self) -> Any:
        """Return the task's argument: a payload, a `Change` or a list of them."""
        payload_type = self.task.payload_type
        if self.new.items is None:
            return payload_type.read(self.payload_json)
        return [payload_type.parse(item) for item in orjson.loads(self.payload_json)["data"]]

    @property
    def changes(self) -> list[Change[Any]]:
        """The changes it carries; empty when its payload is none."""
        payload = self.payload if self.task.payload_type.shape in ("change", "batch") else []
        return payload if isinstance(payload, list) else [payload]

    @property
    def log(self) -> list[Line]:
        """Return the lines it printed and logged, in order."""
        return [
            Line(e.name, e.level or "", orjson.loads(e.attributes))
            for e in self.entries
            if e.kind == "log"
        ]

    @property
    def lines(self) -> list[str]:
        """The texts of `log`."""
        return [line.text for line in self.log]

    @property
    def spans(self) -> list[Span]:
        """Its spans, in the order of their ends."""
        return [
            Span(e.name, orjson.loads(e.attributes), e.error, _seconds(e))
            for e in self.entries
            if e.kind == "span"
        ]

    def __repr__(self) -> str:
        why = f": {self.error.type}: {self.error.message}" if self.error else ""
        return f"<{self.task.name} {self.id} {self.status}, attempt {self.attempt}{why}>"

    def fits(self, wanted: RunFilter) -> bool:
        """Return whether it is what `wanted` looks for, by task, status, queue, tag and time."""
        return (
            wanted.task in (None, self.task.name)
            and (not wanted.statuses or self.status in wanted.statuses)
            and wanted.queue in (None, self.new.queue)
            and (wanted.tag is None or wanted.tag in self.tags)
            and (wanted.since is None or self.created_at >= wanted.since)
            and (wanted.until is None or self.created_at < wanted.until)
        )

    def as_row(self) -> dict[str, Any]:
        """Return it as a run of the state database is shown."""
        new = self.new
        return {
            "id": self.id, "task": new.task, "queue": new.queue, "status": self.status,
            "reason": None, "attempt": self.attempt, "max_attempts": new.max_attempts,
            "error": None if self.error is None else self.error.as_json(),
            "idempotency_key": new.idempotency_key, "concurrency_key": new.concurrency_key,
            "tags": list(self.tags), "metadata": dict(self.metadata), "source": new.source,
            "priority": self.priority_s, "created_at": self.created_at,
            "scheduled_at": self.scheduled_at, "started_at": self.started_at,
            "finished_at": self.finished_at, "worker": None, "parent_id": self.options.parent_id,
            "payload": orjson.loads(self.payload_json), "output": self.output,
        }  # fmt: skip

    def claimed(self, started_at: datetime, held_rows: list[str]) -> ClaimedRun:
        """Return the run as it is given to an executor."""
        new = self.new
        return ClaimedRun(
            new.id, self.seq, new.task, new.queue, self.attempt, new.max_attempts, self.waits,
            self.payload_json.decode(), new.items, new.concurrency_key, new.item_key, new.source,
            started_at, False, self.tags, self.metadata, self.options.traceparent, held_rows,
        )  # fmt: skip

    def take_in(self, outcome: Outcome) -> None:
        """Note what came of an attempt, but for its times and its status."""
        self.output = None if outcome.output is None else orjson.loads(outcome.output)
        self.error = outcome.error
        self.waits += outcome.waited
        if outcome.status != "completed":
            self.failed_attempts.append(FailedAttempt(self.attempt, outcome.error))
        self.failed_items += [
            FailedItem(run.item_key or "", run.error, not run.failed)
            for run in outcome.spawned
            if run.error is not None
        ]


def _seconds(entry: JournalEntry) -> float:
    ended_at = entry.ended_at or entry.started_at
    return (ended_at - entry.started_at).total_seconds()
