"""Fixtures of the tests that need servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import WEBHOOK_SECRET
from tests.integration.run_state import RunState, run_state
from triggerkit.runs.portal import portal
from triggerkit.settings import Settings


@pytest.fixture
def state(settings: Settings) -> Iterator[RunState]:
    """The runs of the test's database, and what is in Redis of them."""
    with run_state(settings) as state:
        yield state


@pytest.fixture
def triggers(
    state: RunState,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[RunState]:
    """`state`, where this process's `.trigger` makes its runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("TRIGGERKIT_WEBHOOK_SECRET", WEBHOOK_SECRET)
    monkeypatch.delenv("TRIGGERKIT_STATE_URL", raising=False)
    yield state
    portal.close()
