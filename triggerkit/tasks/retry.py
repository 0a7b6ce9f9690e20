"""Declare how often, and when, a failing run is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from triggerkit.errors import ConfigurationError, leaves_of

#: Most attempts that can be asked for.
MOST_ATTEMPTS = 10_000

#: Longest delay, in seconds, as of `RetryAfter`: a year.
MAX_DELAY_S = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: how often and when a failing run is tried again. Delays are in seconds.

    The wait after attempt n is `min_delay_s * factor ** (n - 1)`, times a random number between 1
    and 2 when `jitter` is on, and at most `max_delay_s`.

    `wait_for` names exceptions that no run is to blame for, since what the task calls is busy or
    away: a limit that is reached, a key that is refused, no connection. They use up no attempt and
    halve no batch. All runs of the task wait, and one is tried from time to time until one ends
    otherwise.
    """

    max_attempts: int = 3
    factor: float = 2.0
    min_delay_s: float = 1.0
    max_delay_s: float = 60.0
    jitter: bool = True
    wait_for: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        check_attempts(self.max_attempts, "Retry(max_attempts=)")
        delays = self.min_delay_s, self.max_delay_s
        # Written so that NaN, which compares as false, is refused.
        if not (self.factor >= 1 and all(0 <= delay <= MAX_DELAY_S for delay in delays)):
            raise ConfigurationError(
                "Retry needs a factor of at least 1, and delays from 0 to "
                f"{MAX_DELAY_S:.0f} s, a year"
            )
        if not isinstance(self.wait_for, tuple) or not all(map(_is_exception, self.wait_for)):
            raise ConfigurationError(
                "Retry(wait_for=) is a tuple of exception classes, such as (RateLimitError,)"
            )

    def waits_for(self, error: BaseException) -> bool:
        """Tell whether by `error`, or one of its group, what the task calls is busy or away."""
        return any(isinstance(leaf, self.wait_for) for leaf in leaves_of(error))

    def delay_s(self, attempt: int) -> float:
        """Return the seconds to wait after `attempt` (from 1) failed."""
        spread = random.uniform(1, 2) if self.jitter else 1.0  # noqa: S311 - jitter, not a secret
        try:
            return min(self.max_delay_s, spread * self.min_delay_s * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_delay_s


def check_attempts(attempts: object, option: str) -> None:
    """Refuse what is no number of attempts.

    Raises:
        ConfigurationError: see above; the message names the `option`.
    """
    is_whole = isinstance(attempts, int) and not isinstance(attempts, bool)
    if not is_whole or not 1 <= attempts <= MOST_ATTEMPTS:  # type: ignore[operator]
        raise ConfigurationError(f"{option} is a whole number, from 1 to {MOST_ATTEMPTS}")


def _is_exception(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Exception)
