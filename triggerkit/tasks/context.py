"""The run that executes: what a task can ask about it and say in it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Protocol

import orjson

from triggerkit.errors import ConfigurationError, text_of
from triggerkit.runs.journal_entry import JournalEntry, as_attributes
from triggerkit.runs.otel import otel_span
from triggerkit.runs.run import ClaimedRun, storable

#: Most tags of a run, longest tag in characters, and largest metadata in bytes.
MAX_TAGS = 10
MAX_TAG = 128
MAX_METADATA = 256 * 1024

#: A NUL in JSON: an escape that is not itself escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

#: Seconds for which a thread waits in one go: what it executes can be stopped then.
LOOK_S = 0.25


class Notes(Protocol):
    """The writer of what runs say and change of themselves."""

    def put(self, entry: JournalEntry) -> None:
        """Have an entry of the journal written."""

    def update(self, run: ClaimedRun, tags: list[str], metadata: dict[str, Any]) -> Future[None]:
        """Have the tags and metadata of an executing run written, soon; done when they are, failed
        with NotDurable when they could not be."""


class LendableSlots(Protocol):
    """The slots of a worker's process, as far as a run that waits needs them."""

    def lend(self) -> None:
        """Give this run's slot to others while it waits."""

    def take_back(self) -> None:
        """Go on, also when no slot is free."""


#: The span around what is done in this context.
_span: ContextVar[str | None] = ContextVar("triggerkit_span", default=None)


class RunContext:
    """The attempt that executes here: `current_run()` gives it to a task."""

    def __init__(self, run: ClaimedRun, notes: Notes, slots: LendableSlots | None = None) -> None:
        self.run = run
        self._slots = slots
        self._waits = 0
        self._waits_lock = threading.Lock()
        self._notes = notes
        self._tags = list(run.tags)
        self._metadata = dict(run.metadata)
        #: What was printed of lines that have not ended.
        self.partial: dict[str, str] = {}

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.run.task

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.run.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.run.attempt

    @property
    def max_attempts(self) -> int:
        """Return how many attempts there may be."""
        return self.run.max_attempts

    @property
    def source(self) -> Mapping[str, Any] | None:
        """The change it was made from: consumer, position, table, key."""
        return self.run.source

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that its request carried."""
        return self.run.traceparent

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return tuple(self._tags)

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata: a copy; `set_metadata` changes it."""
        return dict(self._metadata)

    def add_tags(self, *tags: str) -> None:
        """Add tags; they are shown while it still runs. On an event loop they are stored soon.

        Raises:
            ConfigurationError: they are too many or too long.
        """
        _wait_unless_on_loop(self._add_tags(tags))

    async def aadd_tags(self, *tags: str) -> None:
        """Do the same, and wait until they are stored.

        Raises:
            ConfigurationError: see `add_tags`.
            NotDurable: they could not be stored.
        """
        await asyncio.wrap_future(self._add_tags(tags))

    def set_metadata(self, **values: Any) -> None:
        """Set keys of the metadata; they are shown while it still runs. On an event loop they are
        stored soon.

        Raises:
            ConfigurationError: they are not JSON, or too large.
        """
        _wait_unless_on_loop(self._set_metadata(values))

    async def aset_metadata(self, **values: Any) -> None:
        """Do the same, and wait until they are stored.

        Raises:
            ConfigurationError: see `set_metadata`.
            NotDurable: they could not be stored.
        """
        await asyncio.wrap_future(self._set_metadata(values))

    def _add_tags(self, tags: Sequence[str]) -> Future[None]:
        self._tags = checked_tags([*self._tags, *(t for t in tags if t not in self._tags)])
        return self._notes.update(self.run, self._tags, self._metadata)

    def _set_metadata(self, values: dict[str, Any]) -> Future[None]:
        self._metadata = checked_metadata({**self._metadata, **values})
        return self._notes.update(self.run, self._tags, self._metadata)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for another run."""
        return self._waits > 0

    def lend_slot(self) -> None:
        """It begins to wait for another run. Its one slot is for others while it waits for any."""
        with self._waits_lock:
            self._waits += 1
            if self._waits == 1 and self._slots is not None:
                self._slots.lend()

    def take_slot_back(self) -> None:
        """A wait is over."""
        with self._waits_lock:
            self._waits -= 1
            if self._waits == 0 and self._slots is not None:
                self._slots.take_back()

    def log(self, text: str, level: str, attributes: dict[str, Any] | None = None) -> None:
        """Note a line of the run."""
        self._notes.put(
            JournalEntry(
                self.run.id,
                self.run.attempt,
                "log",
                None,
                _span.get(),
                text,
                level,
                as_attributes(attributes or {}),
                None,
                datetime.now(UTC),
                None,
            )
        )

    @contextmanager
    def span(self, name: str, attributes: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """See `span`."""
        span_id, parent = token_hex(8), _span.get()
        token = _span.set(span_id)
        started_at = datetime.now(UTC)
        error: str | None = None
        try:
            yield attributes
        except BaseException as raised:
            error = f"{type(raised).__name__}: {text_of(raised)}".removesuffix(": ")[:1000]
            raise
        finally:
            _span.reset(token)
            self._notes.put(
                JournalEntry(
                    self.run.id,
                    self.run.attempt,
                    "span",
                    span_id,
                    parent,
                    name,
                    None,
                    as_attributes(attributes),
                    error,
                    started_at,
                    datetime.now(UTC),
                )
            )


def _wait_unless_on_loop(written: Future[None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # In one long wait, nothing that is raised in this thread from outside would be seen.
        while not wait([written], LOOK_S).done:
            pass


#: The attempt that executes in this context.
running: ContextVar[RunContext | None] = ContextVar("triggerkit_run", default=None)


def current_run() -> RunContext:
    """Return the run that executes the caller.

    Raises:
        LookupError: none does: the function was called as plain Python.
    """
    context = running.get()
    if context is None:
        raise LookupError("no run executes here: the function was called directly")
    return context


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[dict[str, Any]]:
    """Record a named part of a run, shown with its times: `with span("fetch", url=url) as facts:`.

    What is put into `facts` is shown with it. Outside of a run it does nothing.
    """
    context = running.get()
    with otel_span(name, attributes):
        if context is None:
            yield attributes
            return
        with context.span(name, attributes) as facts:
            yield facts


def checked_tags(tags: list[str]) -> list[str]:
    """`tags`, if a run may have them.

    Raises:
        ConfigurationError: it may not.
    """
    if len(tags) > MAX_TAGS or any(not isinstance(t, str) or len(t) > MAX_TAG for t in tags):
        raise ConfigurationError(
            f"a run has at most {MAX_TAGS} tags, each a text of at most {MAX_TAG} characters"
        )
    for tag in tags:
        if storable(tag) != tag:
            raise ConfigurationError(
                f"the tag {tag!r} has a NUL or a lone surrogate, which Postgres cannot store; "
                "leave it out"
            )
    return tags


def checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """`metadata`, if a run may have it.

    Raises:
        ConfigurationError: it may not.
    """
    try:
        text = orjson.dumps(metadata)
    except TypeError as error:
        raise ConfigurationError(f"metadata must be JSON: {error}") from error
    if _NUL.search(text):
        name = next(n for n, value in metadata.items() if _NUL.search(orjson.dumps({n: value})))
        raise ConfigurationError(
            f"the metadata {name!r} has a NUL, which Postgres cannot store; leave it out"
        )
    size = len(text)
    if size > MAX_METADATA:
        raise ConfigurationError(
            f"the metadata has {size} bytes, more than the limit of {MAX_METADATA}"
        )
    return metadata
