"""A keeper of a test's runs."""

from __future__ import annotations

import pytest

from tests.integration.run_state import RunState
from tests.integration.runs.keeping import new_keeper
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.settings import Settings


@pytest.fixture
def keeper(settings: Settings, state: RunState) -> Keeper:
    return new_keeper(settings, state, lease_s=0.0)
