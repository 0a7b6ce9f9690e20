"""The clock of runs in memory: it stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from triggerkit.errors import ConfigurationError


class Clock:
    """The clock of runs in memory. Your own code's `datetime.now()` is not changed."""

    def __init__(self, at: datetime | None = None) -> None:
        """It begins `at`, a time with a time zone; now by default."""
        self._now = datetime.now(UTC) if at is None else _aware(at)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self._now

    def advance(self, by: float | timedelta) -> None:
        """Move on by so many seconds. What is due then is executed by the next `drain`."""
        self.move_to(self.after(by))

    def move_to(self, moment: datetime) -> None:
        """Move on to `moment`, a time with a time zone.

        Raises:
            ConfigurationError: it is in the past, or has no time zone.
        """
        self._now = self.to_come(moment)

    def after(self, span: float | timedelta) -> datetime:
        """Return the time `span` from now, in seconds or a timedelta."""
        return self._now + (span if isinstance(span, timedelta) else timedelta(seconds=span))

    def to_come(self, moment: datetime) -> datetime:
        """`moment` in UTC, if the clock can be moved to it; raises as `move_to`."""
        moment = _aware(moment)
        if moment < self._now:
            raise ConfigurationError(f"the clock is at {self._now} and cannot go back")
        return moment


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ConfigurationError("a time needs a time zone: datetime(…, tzinfo=UTC)")
    return moment.astimezone(UTC)
