"""What tests of deliveries share."""

from __future__ import annotations

import pytest


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Double and jitter the back-off as ever, from less."""
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.4)
