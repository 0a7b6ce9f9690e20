"""Record what tasks print and log with their runs, and pass it on whole line by whole line.

Several runs print at the same time, and Python writes a line and its end one after the other:
written straight to standard output they would run into each other, and into our own lines.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from io import BufferedIOBase, TextIOBase
from typing import TYPE_CHECKING, Any, Self, TextIO

from triggerkit.errors import traceback_of
from triggerkit.runs.run import storable
from triggerkit.tasks.context import running
from triggerkit.worker.telemetry.journal import MAX_LINE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

#: Passes a line on: (text, the id of the run it belongs to, or None).
Echo = Callable[[str, str | None], None]


class LineWriter(TextIOBase):
    """Stands in for standard output or error: whole lines go to the run and to `echo`."""

    def __init__(self, stream: TextIO, name: str, echo: Echo) -> None:
        self._stream = stream
        self._name = name
        self._echo = echo
        self._partial = threading.local()

    def write(self, text: str) -> int:
        """Take in `text`; what has no end yet waits for it."""
        context = running.get()
        partial = self._partial.__dict__ if context is None else context.partial
        *lines, rest = (partial.get(self._name, "") + text).split("\n")
        for line in lines:
            self._tell(line)
        # A line without an end must not grow without bound.
        if len(rest) > 4 * MAX_LINE:
            rest = rest[: 4 * MAX_LINE]
        partial[self._name] = rest
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Take in `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing to do: lines are passed on when they end."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def fileno(self) -> int:
        """Return the real stream's descriptor, for programs that a task starts."""
        return self._stream.fileno()

    def reconfigure(self, **options: Any) -> None:
        """Change the real stream as a module asks for, where that can be changed."""
        self.flush()
        with contextlib.suppress(Exception):
            self._stream.reconfigure(**options)  # type: ignore[attr-defined]

    def writable(self) -> bool:
        """It can be written to."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the real stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """That of the real stream."""
        return self._stream.errors

    @property
    def name(self) -> str:
        """That of the real stream."""
        return self._stream.name

    @property
    def line_buffering(self) -> bool:
        """Whole lines are passed on."""
        return True

    @property
    def buffer(self) -> _Bytes:
        """Takes bytes."""
        return _Bytes(self)

    def _tell(self, line: str) -> None:
        context = running.get()
        if context is not None and not getattr(_noted, "now", False):
            context.log(line, self._name)
        if len(line) > MAX_LINE:
            line = f"{line[:200]}… ({len(line):,} characters, the rest was left out)"
        # What cannot be shown, or nobody sees any more, is no failure of the task.
        with contextlib.suppress(Exception):
            self._echo(storable(line), None if context is None else context.id)


class _Bytes(BufferedIOBase):
    """The bytes' side of a `LineWriter`, which a task may wrap in a text stream of its own."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write(self, data: Buffer) -> int:
        """Take in `data`."""
        taken = bytes(data)
        self._writer.write(taken.decode(errors="backslashreplace"))
        return len(taken)

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def fileno(self) -> int:
        """Return the real stream's descriptor."""
        return self._writer.fileno()

    @property
    def name(self) -> str:
        """That of the real stream."""
        return self._writer.name


class _NoLock:
    """Stands where a lock is expected, and holds nobody up: since Python 3.13 None may not."""

    def acquire(self) -> bool:
        """Do nothing."""
        return True

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class UnlockedHandler(logging.Handler):
    """A handler without a lock: one that a run holds as it is stopped would stay held.

    What it does for a record is one call that other threads cannot come between.
    """

    def createLock(self) -> None:  # noqa: N802 - the overridden method's name
        """Make none."""
        self.lock = _NoLock()  # type: ignore[assignment]


class RunHandler(UnlockedHandler):
    """Notes the lines that are logged while a run executes, by any logger.

    It belongs to no logger: those of the project may be set up anew at any time.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Note `record` with the run of this context."""
        context = running.get()
        if context is None:
            return
        try:
            text = record.getMessage()
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                text += f"\n{traceback_of(error).rstrip()}"
            context.log(text, record.levelname.lower(), {"logger": record.name})
        except Exception:
            self.handleError(record)


_run_handler = RunHandler()

#: Whether this thread is telling handlers of a line that is noted: those print it once more.
_noted = threading.local()

_call_handlers = logging.Logger.callHandlers


def _note_and_call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    if record.name.startswith("triggerkit.") or running.get() is None:
        _call_handlers(logger, record)
        return
    _run_handler.handle(record)
    before = getattr(_noted, "now", False)
    try:
        _noted.now = True
        _call_handlers(logger, record)
    finally:
        _noted.now = before


def capture_output(echo: Echo | None) -> Callable[[], None]:
    """From now on, in this process, what is printed and logged belongs to the run that executes.

    `echo` passes printed lines on; without it they go to the real streams. Call it before the
    project's modules are imported: they may keep the streams they find. What it returns undoes it.
    """
    streams: dict[str, Any] = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        setattr(sys, name, LineWriter(stream, name, echo or _echo_to(stream)))
    logging.Logger.callHandlers = _note_and_call_handlers  # type: ignore[method-assign,assignment]

    def release() -> None:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]

    return release


def finish_lines() -> None:
    """End an attempt's lines: what it printed without an end of line is a line too."""
    context = running.get()
    if context is not None:
        for name, rest in context.partial.items():
            writer = getattr(sys, name)
            if rest and isinstance(writer, LineWriter):
                writer.write("\n")


def _echo_to(stream: TextIO) -> Echo:
    def echo(line: str, run_id: str | None) -> None:  # noqa: ARG001
        encoding = stream.encoding or "utf-8"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()

    return echo
