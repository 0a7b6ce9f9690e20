"""Times as the SDK's callers write them: `1h`, `2d12h`, a number of seconds, a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SPAN = re.compile(
    r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})hr?)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII
)

_SECONDS = (7 * 86_400, 86_400, 3600, 60, 1)

#: As errors tell it.
SPANS = 'write it as "45s", "30m", "2h", "7d", "2w", or several together in the order w d h m s'


def read_span(text: str) -> float:
    """Return the seconds that `text` says.

    Raises:
        ValueError: it is not understood.
    """
    found = _SPAN.fullmatch(text)
    if found is None or not text:
        raise ValueError(SPANS)
    return float(sum(int(n or 0) * s for n, s in zip(found.groups(), _SECONDS, strict=True)))


def read_moment(text: str) -> float | datetime:
    """Return how far from now a time is, in seconds, or the time itself.

    Raises:
        ValueError: it is neither a span nor a date.
    """
    try:
        return read_span(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{SPANS}; or give a date") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
