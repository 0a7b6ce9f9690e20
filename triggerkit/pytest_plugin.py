"""Fixtures for pytest: `triggerkit_runs` and `triggerkit_clock`.

Every run of pytest where triggerkit is installed imports this module: nothing else is imported
before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from triggerkit.testing import Clock, MemoryRuns


@pytest.fixture
def triggerkit_clock() -> Clock:
    """Return the clock of `triggerkit_runs`; it stands still until it is moved."""
    from triggerkit.testing import Clock

    return Clock()


@pytest.fixture
def triggerkit_runs(triggerkit_clock: Clock) -> Iterator[MemoryRuns]:
    """Record in memory what the test triggers; see `triggerkit.testing.memory_runs`."""
    from triggerkit.testing import memory_runs

    with memory_runs(triggerkit_clock) as runs:
        yield runs
