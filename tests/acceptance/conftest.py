"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.run_state import RunState, run_state
from triggerkit.settings import Settings


@pytest.fixture
def state(settings: Settings) -> Iterator[RunState]:
    """The runs of the test's database, and what is in Redis of them."""
    with run_state(settings) as state:
        yield state
