"""A filter function of the tests."""

from __future__ import annotations

import time
from typing import Any

from triggerkit import Change


def nothing(change: Change[Any]) -> bool:
    """Want no message."""
    return False


def never(change: Change[Any]) -> bool:
    """Take longer than anybody waits."""
    time.sleep(3600)
    return True
