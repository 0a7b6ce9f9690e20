"""Every error triggerkit raises, in one tree.

    TriggerkitError
    ├── ConfigurationError          a setting, file or declaration is wrong      (exit 2)
    │   ├── DuplicateTask
    │   ├── UnknownTask
    │   ├── TaskImportError
    │   ├── InvalidEndpoint
    │   ├── DeclaredElsewhere
    │   ├── WouldLose
    │   └── CannotDecrypt
    ├── UnknownConsumer             no consumer has this name                    (exit 1)
    ├── NameTaken                   something of this name exists already        (exit 1)
    ├── UnknownEndpoint             no endpoint has this name                    (exit 1)
    ├── EndpointConflict            an endpoint cannot be changed as it is       (exit 1)
    ├── UnknownMessage              no such message is parked                    (exit 1)
    ├── NotRetryable                a parked message cannot be retried now       (exit 1)
    ├── PreflightFailed             the database or Redis is not set up          (exit 3)
    ├── CannotConnect               no server answers at the address             (exit 4)
    ├── AlreadyRunning              another process holds the folder or the slot (exit 1)
    ├── ProtocolError               bytes that violate the replication protocol
    │   ├── MalformedFrame
    │   ├── MalformedMessage
    │   └── UnknownRelation
    ├── SlotError                   the replication slot cannot be used
    ├── Fenced                      another writer took over this database
    ├── InvalidPayload              a payload that does not match its task's type
    ├── NotDurable                  a run could not be stored; send it again
    ├── RunFailed                   the awaited run ended without success
    ├── InvalidOutput               an output that does not fit its task's type
    ├── UnknownRun                  no run has this id                           (exit 1)
    ├── HasEnded                    the run has ended already                    (exit 1)
    ├── UnknownRow                  a table has no such row                      (exit 1)
    ├── NotDrained                  a test's runs in memory never end
    ├── UnknownQueue                no queue has this name                       (exit 1)
    ├── UnknownSchedule             no schedule has this name                    (exit 1)
    ├── UnknownEventUser            no user of the events has this name          (exit 1)
    └── TaskError                   raised by tasks to control their retry
        ├── AbortRun
        └── RetryAfter

A class's docstring is its default message and says what to do next. Messages never carry a
row's values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from inspect import getdoc
from traceback import StackSummary, TracebackException, extract_tb


class TriggerkitError(Exception):
    """Something went wrong in triggerkit; the log has the details."""

    #: The exit code of a command that ends by this error.
    exit_code: int = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or getdoc(type(self)))


class ConfigurationError(TriggerkitError):
    """The configuration is wrong; correct the named setting and start again."""

    exit_code = 2


class DuplicateTask(ConfigurationError):
    """Two tasks have the same name; rename one of them with @task(name=...)."""


class UnknownTask(ConfigurationError):
    """No task has this name; `triggerkit tasks` lists the tasks."""


class UnknownConsumer(TriggerkitError):
    """No consumer has this name; `triggerkit consumers list` lists the consumers."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(unknown_name("consumer", name, known))
        self.name = name


class NameTaken(TriggerkitError):
    """Something of this name exists already; choose another name."""


class ChangedMeanwhile(TriggerkitError):
    """Somebody else changed it since it was looked at; look at it again."""


class TaskImportError(ConfigurationError):
    """A task module cannot be imported; correct the line shown above."""


class InvalidEndpoint(ConfigurationError):
    """The endpoint's URL, headers or secret are invalid; correct what the message names."""

    def __init__(self, message: str | None = None, field: str | None = None) -> None:
        """`field` is the one that is wrong, such as `url`, where a single one is."""
        super().__init__(message)
        self.field = field


class DeclaredElsewhere(ConfigurationError):
    """It is declared in code or in triggerkit.toml; change it there and run: triggerkit apply"""


class WouldLose(ConfigurationError):
    """The change would lose something for good; confirm it with --yes."""


class CannotDecrypt(ConfigurationError):
    """A stored value cannot be decrypted; TRIGGERKIT_ENCRYPTION_KEY must list its key."""


class UnknownEndpoint(TriggerkitError):
    """No endpoint has this name; `triggerkit endpoints list` lists the endpoints."""


class EndpointConflict(TriggerkitError):
    """The endpoint is in use, is declared elsewhere, or exists already."""


class UnknownMessage(TriggerkitError):
    """No such message is parked; `triggerkit messages list` lists parked messages."""


class NotRetryable(TriggerkitError):
    """The parked message cannot be retried now: retry the one it waits behind, or discard it."""


class PreflightFailed(TriggerkitError):
    """The database is not set up for change capture; `triggerkit check` says what to change."""

    exit_code = 3


class CannotConnect(TriggerkitError):
    """No server answers at this address; check that it runs and that the URL is correct."""

    exit_code = 4


class AlreadyRunning(TriggerkitError):
    """Another triggerkit runs here; stop it first."""


class ProtocolError(TriggerkitError):
    """The server sent bytes that cannot be parsed; report it with the server's version."""


class MalformedFrame(ProtocolError):
    """A frame of the streaming replication protocol is malformed."""


class MalformedMessage(ProtocolError):
    """A pgoutput message is malformed."""


class UnknownRelation(ProtocolError):
    """A row arrived for a relation that was never announced on this connection."""

    def __init__(self, oid: int) -> None:
        super().__init__(f"a row arrived for relation {oid}, which was never announced")
        self.oid = oid


class SlotError(TriggerkitError):
    """The replication slot cannot be used; `triggerkit check` says why."""

    exit_code = 3

    def __init__(self, message: str, slot_name: str) -> None:
        super().__init__(message)
        self.slot_name = slot_name


class Fenced(TriggerkitError):
    """Another stream process now writes this database's log; this one stops."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One invalid field of a payload: `loc` is the path to it, as pydantic gives it."""

    loc: tuple[str | int, ...]
    msg: str


class InvalidPayload(TriggerkitError):
    """The payload does not match the task's type."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        listed = "; ".join(f"{'.'.join(map(str, p.loc))}: {p.msg}" for p in problems)
        super().__init__(f"the payload does not match the task's type: {listed}")
        self.problems = problems


class NotDurable(TriggerkitError):
    """The run could not be written to the state database; send it again later."""


class RunFailed(TriggerkitError):
    """The awaited run ended without success."""

    def __init__(self, run_id: str, status: str, error: str | None) -> None:
        super().__init__(f"{run_id} is {status}" + (f": {error}" if error else ""))
        self.run_id = run_id
        self.status = status


class InvalidOutput(TriggerkitError):
    """The output is not of the type that the task's function says it returns; correct one."""


class UnknownRun(TriggerkitError):
    """No run has this id; `triggerkit runs list` lists the runs."""


class HasEnded(TriggerkitError):
    """The run has ended already."""


class UnknownRow(TriggerkitError):
    """The table has no row of this key."""


class NotDrained(TriggerkitError):
    """The runs in memory never end."""


class UnknownQueue(TriggerkitError):
    """No queue has this name; `triggerkit queues list` lists the queues."""


class UnknownSchedule(TriggerkitError):
    """No schedule has this name; `triggerkit schedules list` lists the schedules."""


class UnknownEventUser(TriggerkitError):
    """No user of the events has this name; `triggerkit events users list` lists the users."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(unknown_name("user", name, known))
        self.name = name


class TaskError(TriggerkitError):
    """Raised inside a task to control its retry."""


class AbortRun(TaskError):
    """The run cannot succeed: it fails now, without further attempts."""


class RetryAfter(TaskError):
    """The run is retried after `seconds`, whatever its back-off says."""

    def __init__(self, delay: float | timedelta, message: str | None = None) -> None:
        """`delay` is in seconds, or a timedelta."""
        self.seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        super().__init__(message or f"asked to be retried in {self.seconds:g} s")


#: How many of the known names a message lists.
LISTED = 20


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the one of the known names that was probably meant."""
    by_case = {other.casefold(): other for other in known}
    found = get_close_matches(name.casefold(), by_case, 1)
    return by_case[found[0]] if found else None


def suggested(name: str, known: Collection[str]) -> str:
    """Return the end of a sentence, `; did you mean orders?`, or "" where no name is like it."""
    found = closest(name, known)
    return "" if found is None else f"; did you mean {found}?"


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Return the message that nothing of this kind has the name, with those that there are."""
    said = f"no {kind} is named {name!r}"
    if not known:
        return f"{said}; there are none yet"
    listed = ", ".join(list(known)[:LISTED])
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    meant = suggested(name, known)
    return f"{said}{meant or ';'} known {kind}s: {listed}{more}"


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of an exception group, as a `TaskGroup` raises it; else `error` itself."""
    left = [error]
    while left:
        inner = left.pop()
        if isinstance(inner, BaseExceptionGroup):
            left.extend(reversed(inner.exceptions))
        else:
            yield inner


def text_of(value: object) -> str:
    """Return the text of an error, or of another value, whatever its class does."""
    try:
        return str(value)
    except BaseException:
        return f"({type(value).__name__} cannot be shown as text)"


def repr_of(value: object) -> str:
    """Return the value's `repr`, whatever its class does."""
    try:
        return repr(value)
    except BaseException:
        return f"({type(value).__name__} cannot be shown as text)"


def raised_at(error: BaseException) -> StackSummary:
    """Return the frames that it was raised through."""
    return extract_tb(BaseException.__dict__["__traceback__"].__get__(error))


def traceback_of(error: BaseException) -> str:
    """Return the error with its causes, or, of one that breaks whoever looks at them, alone."""
    try:
        return "".join(TracebackException.from_exception(error, compact=True).format())
    except BaseException:
        return alone(error, raised_at(error))


def alone(error: BaseException, frames: StackSummary) -> str:
    """Return the traceback of the error without its causes, of these frames."""
    head = ["Traceback (most recent call last):\n", *frames.format()] if frames else []
    return "".join([*head, f"{type(error).__name__}: {text_of(error)}\n"])
