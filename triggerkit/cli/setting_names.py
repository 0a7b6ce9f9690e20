"""Find settings that nobody reads, which are mostly misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final

from triggerkit.settings import Settings

PREFIX: Final = "TRIGGERKIT_"

#: What processes of ours tell one another.
INTERNAL: Final = frozenset(
    PREFIX + name
    for name in ("FAIL_POINT", "LIFELINE", "LOG_FORMAT", "ORDERS_FD", "READY_FD", "WORKER_ID")
)

#: What the tests of triggerkit itself are told.
TESTS: Final = "TRIGGERKIT_TEST_"

#: What Kubernetes and Docker say of a service whose name begins like ours.
_SERVICE_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")

#: How alike a name must be to one that is known, from 0 to 1.
_ALIKE = 0.6


def unknown_settings(names: Iterable[str], root: Any) -> list[str]:
    """Return a sentence for each of `names` that begins like a setting and is none.

    `root`, the whole command line, is asked for the environment twins of its options.
    """
    fields = {name.upper() for name in Settings.model_fields}
    left = [
        name
        for name in sorted(names)
        if name.startswith(PREFIX)
        and name not in fields | INTERNAL
        and not name.startswith(TESTS)
        and not _SERVICE_LINK.fullmatch(name)
    ]
    if not left:
        return []
    known = {name for name in fields | set(_twins(root)) if name.startswith(PREFIX)}
    return [_told(name, known, fields) for name in left if name not in known]


def _told(name: str, known: set[str], fields: set[str]) -> str:
    if name.removeprefix(PREFIX) in fields:
        return f"unknown {name}; did you mean {name.removeprefix(PREFIX)}?"
    endings = [other.removeprefix(PREFIX) for other in sorted(known)]
    close = get_close_matches(name.removeprefix(PREFIX), endings, 1, _ALIKE)
    if close:
        return f"unknown {name}; did you mean {PREFIX}{close[0]}?"
    return f"unknown {name}: nothing reads it; .env.example lists the settings"


def _twins(command: Any) -> Iterator[str]:
    """Yield the environment twins of the command's options, and of those of its commands."""
    for parameter in command.params:
        twin = parameter.envvar
        yield from [twin] if isinstance(twin, str) else twin or ()
    for inner in getattr(command, "commands", {}).values():
        yield from _twins(inner)
