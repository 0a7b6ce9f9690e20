"""Logging of our own processes: lines for people, or JSON lines for `triggerkit dev` to render."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from triggerkit.errors import traceback_of
from triggerkit.worker.telemetry.output import Echo, UnlockedHandler

#: Set by `dev` for its children.
FORMAT_VARIABLE = "TRIGGERKIT_LOG_FORMAT"

#: The logger that tells the supervisor what a process does.
lifecycle = logging.getLogger("triggerkit.lifecycle")

#: The logger that passes on what the project prints.
output = logging.getLogger("triggerkit.output")


#: How levels are written, whatever names the project gives them.
LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}

#: The name of our loggers, and the beginning of their names.
OWN = "triggerkit"

#: Where our loggers are in a process of ours: what the project's code does to its logging
#: (`dictConfig`, `basicConfig(force=True)`, `logging.disable`) does not reach them.
_own_root = logging.RootLogger(logging.WARNING)
_own = logging.Manager(_own_root)


class StreamHandler(UnlockedHandler, logging.StreamHandler[Any]):
    """Writes each record to a stream by one call."""


class Lines(logging.Formatter):
    """Lines for people."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the overridden method's name
        """Return the traceback, also of an error that breaks whoever looks at it."""
        return super().formatException(ei) if ei[1] is None else traceback_of(ei[1]).rstrip()


class JsonLines(Lines):
    """One JSON object a line: time, level, logger, message, and the record's facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": LEVELS.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def is_own_line(facts: dict[str, Any]) -> bool:
    """Return whether a line of JSON was formatted by `JsonLines`, in a process of ours."""
    return facts.keys() >= {"at", "level", "logger", "message"}


def is_child() -> bool:
    """Return whether `triggerkit dev` started this process and reads what it prints."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def configure(*, json_lines: bool, quiet: bool = False) -> None:
    """Log to standard output: our lines by a handler of their own, and warnings of libraries."""
    formatter = JsonLines() if json_lines else Lines("%(asctime)s %(message)s", "%H:%M:%S")
    ours, others = StreamHandler(sys.stdout), StreamHandler(sys.stdout)
    for handler in (ours, others):
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[others], force=True)
    logging.getLogger(OWN).setLevel(logging.WARNING if quiet else logging.INFO)
    # Of errors that end a statement or a connection its users are told by an exception, too.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # Runs that fail are told by triggerkit.runs, with the task's own frames.
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)
    _own_root.handlers[:] = [ours]
    keep_own_loggers()


def keep_own_loggers() -> None:
    """Put our loggers, those made since the last call too, out of the project's reach."""
    known = logging.root.manager.loggerDict
    for name in [name for name in known if name == OWN or name.startswith(f"{OWN}.")]:
        logger = known.pop(name)
        if isinstance(logger, logging.Logger) and name not in _own.loggerDict:
            logger.manager, logger.disabled = _own, False
            _own.loggerDict[name] = logger
            if name == OWN:
                logger.parent = _own_root
            elif logger.parent is logging.root:
                logger.parent = _own.getLogger(OWN)


def echo_output() -> Echo | None:
    """Format what the project prints, for `dev`: as a line of ours, so that
    lines of several runs cannot run into each other. None in other processes: it is printed."""
    if not is_child():
        return None

    def echo(line: str, run_id: str | None) -> None:
        facts = {"event": "output", "run": run_id}
        output.info("%s", line, extra={"facts": facts})

    return echo


def announce(state: str, **facts: Any) -> None:
    """Tell the supervisor, or the person at the terminal, that this process is in `state`."""
    lifecycle.info(state, extra={"facts": {"event": "state", "state": state, **facts}})
