"""Settings of the log: where it is, and how large it may grow."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, field_validator

from triggerkit.configuration.quantities import BYTES

#: The largest log: what a bigint counts.
LARGEST_LOG_BYTES = 10**18

#: The places of the log that this release offers.
OFFERED: frozenset[str] = frozenset(("postgres",))


class LogSettings(BaseModel):
    """Named as in the environment but in lower case, as all settings are."""

    triggerkit_log: Literal["postgres", "kafka"] = "postgres"
    triggerkit_log_max_bytes: str = "20GB"

    @field_validator("triggerkit_log")
    @classmethod
    def _offered(cls, value: str) -> str:
        if value not in OFFERED:
            raise ValueError(
                "the log on Kafka is not offered by this release, since not all that needs the log "
                "reads it there yet; leave it out, or set it to postgres"
            )
        return value

    @field_validator("triggerkit_log_max_bytes")
    @classmethod
    def _size(cls, value: str) -> str:
        if BYTES.read(value) > LARGEST_LOG_BYTES:
            raise ValueError("it is too large; the largest is 1000000TB")
        return value

    @property
    def log_max_bytes(self) -> int:
        """Return the log's limit in bytes; beyond it the oldest part goes, delivered or not."""
        return int(BYTES.read(self.triggerkit_log_max_bytes))
