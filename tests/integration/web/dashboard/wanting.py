"""A filter function of the tests."""

from __future__ import annotations

from typing import Any

from triggerkit import Change


def nothing(change: Change[Any]) -> bool:
    """Want no message."""
    return False
