"""Runs in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.testing import NOON
from triggerkit.testing import (
    Clock,
    MemoryRuns,
    memory_runs,
)


@pytest.fixture
def runs() -> Iterator[MemoryRuns]:
    """Runs in memory, at noon."""
    with memory_runs(Clock(NOON)) as runs:
        yield runs
