"""A visitor of a served dashboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.run_state import RunState
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from triggerkit import task


@pytest.fixture
def visitor(state: RunState) -> Iterator[Visitor]:
    """Somebody who is logged in, where the task `work` is known."""

    @task(name="work")
    def work(payload: dict[str, int]) -> None: ...

    with dashboard(state.settings, [work]) as visitor:
        yield visitor.log_in()
