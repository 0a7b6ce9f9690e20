"""How long an API asks its callers to wait, read from the headers of its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: OpenAI writes resets as durations: "1s", "6m0s", "20ms", "1h2m3.5s".
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
IN_TEXT = re.compile(rf"(?:try again|retry) (?:in|after) ({DURATION.pattern})", re.I)
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def asked_wait_s(
    headers: Mapping[str, str], *, limited: bool = True, now: datetime | None = None
) -> float | None:
    """Seconds to wait before the next request, None when the answer does not say.

    `retry-after-ms` is exacter than `retry-after`, and both are meant for this request. When a
    limit is reached (`limited`), the resets of the limits are the next best, the latest of them;
    they are in all answers, and say nothing about a failure of another kind.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    retry_after = headers.get("retry-after")
    if retry_after is not None:
        seconds = _number(retry_after)
        return _until(retry_after, now or datetime.now(UTC)) if seconds is None else seconds
    if not limited:
        return None
    resets = (
        parse_duration_s(headers.get(f"x-ratelimit-reset-{limit}", ""))
        for limit in ("requests", "tokens")
    )
    return max((reset for reset in resets if reset is not None), default=None)


def asked_wait_in_text_s(message: str) -> float | None:
    """Return the seconds that a message asks to wait ("Please try again in 1.2s"), None if none."""
    found = IN_TEXT.search(message)
    return None if found is None else parse_duration_s(found[1])


def parse_duration_s(text: str) -> float | None:
    """Seconds of a duration such as "6m0s", None when it is not one."""
    if DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * SECONDS[unit] for number, unit in PART.findall(text))


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d+(\.\d+)?", text) else None


def _until(http_date: str, now: datetime) -> float | None:
    try:
        at = parsedate_to_datetime(http_date)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
