"""Settings of how a process is watched, how it ends, and whom it tells of problems."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr, field_validator

from triggerkit.configuration.addresses import bare_host, http_problem
from triggerkit.configuration.quantities import SECONDS

#: The longest time that a process may be given to end, in seconds: a day.
LONGEST_GRACE_S = 86_400

#: The longest time between two reminders of one problem, in seconds: a month.
LONGEST_AGAIN_S = 31 * 86_400


class ProcessSettings(BaseModel):
    """Named as in the environment but in lower case, as all settings are."""

    triggerkit_health_host: str = "127.0.0.1"
    triggerkit_health_port: int | None = Field(default=None, ge=0, le=65535)
    triggerkit_grace: str | None = None
    triggerkit_drain: str | None = None
    triggerkit_alerts_url: SecretStr | None = None
    triggerkit_alerts_secret: SecretStr | None = None
    triggerkit_alerts_again: str = "1h"

    @field_validator("triggerkit_health_host")
    @classmethod
    def _host(cls, value: str) -> str:
        return bare_host(value)

    @field_validator("triggerkit_grace", "triggerkit_drain")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value is not None and SECONDS.read(value) > LONGEST_GRACE_S:
            raise ValueError("it is too long; the longest is 1d")
        return value

    @field_validator("triggerkit_alerts_again")
    @classmethod
    def _again(cls, value: str) -> str:
        if SECONDS.read(value) > LONGEST_AGAIN_S:
            raise ValueError("it is too long; the longest is 31d")
        return value

    @field_validator("triggerkit_alerts_url")
    @classmethod
    def _receiver(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := http_problem(value.get_secret_value())):
            raise ValueError(
                f"it cannot be read: {problem}; it looks like https://alerts.example.com/triggerkit"
            )
        return value

    @property
    def grace_s(self) -> float | None:
        """Return the seconds that a process has to finish what it does, once it is asked to end;
        None where nothing is set."""
        return None if self.triggerkit_grace is None else SECONDS.read(self.triggerkit_grace)

    @property
    def drain_s(self) -> float:
        """Return the seconds that `serve` goes on taking requests after it is asked to end."""
        return 0.0 if self.triggerkit_drain is None else SECONDS.read(self.triggerkit_drain)

    @property
    def alerts_again_s(self) -> float:
        """Return the seconds after which a problem that is still there is told again."""
        return SECONDS.read(self.triggerkit_alerts_again)
