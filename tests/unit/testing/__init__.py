"""The tests of `triggerkit/testing/`."""

from __future__ import annotations

from datetime import UTC, datetime

#: When the clocks of these tests begin.
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
