"""Read moments that are still to come, as people write them: `now`, `30m`, a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from triggerkit.configuration.quantities import SECONDS

#: No moment is later. Behind it are those that Postgres can store and Python cannot read.
LATEST = datetime(9000, 1, 1, tzinfo=UTC)

HOW = "write now, how long from now (30m, 2h, 7d), or a time such as 2026-01-31T12:00:00Z"


def moment_ahead(text: str) -> datetime:
    """Return a moment that is given as `now`, by how far it is from now, or in ISO 8601, of UTC
    unless it says otherwise.

    Raises:
        ValueError: it is none of them.
    """
    if text == "now":
        return datetime.now(UTC)
    try:
        return datetime.now(UTC) + timedelta(seconds=SECONDS.read(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(HOW) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def seconds_until(moment: datetime) -> float:
    """Return the seconds until a moment; none until one that is past.

    Raises:
        ValueError: it is too far from now.
    """
    require_near(moment)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def require_near(moment: datetime) -> None:
    """Check that a moment, whatever is added to it, can be read where it was stored.

    Raises:
        ValueError: it is too far from now.
    """
    if moment > LATEST:
        raise ValueError(f"a time is before the year {LATEST.year}")
