"""The embeddings API answers 429 without a word of when to come again, for two minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.app.busy import live_through
from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import DIMENSIONS, embedded, reference_tables
from tests.integration.run_state import run_state
from triggerkit.settings import Settings

POSTS = 2_300
BUSY_S = 120


@pytest.fixture
def api() -> Iterator[OpenAIServer]:
    with OpenAIServer(DIMENSIONS).running() as server:
        yield server


@pytest.fixture
def database(
    database_url: str, api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    with reference_tables(database_url, api, monkeypatch) as connection:
        yield connection


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_minutes_of_a_busy_api_cost_nothing_but_time(
    settings: Settings, database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    with run_state(settings) as state:
        seen = live_through(state, database, api, posts=POSTS, busy_s=BUSY_S)
        assert set(state.statuses()) == {"completed"}
    assert seen.told_after_s < 5
    assert seen.requests < POSTS / 100 + BUSY_S * 1.1
    assert len(embedded(database)) == POSTS
    assert len(api.inputs) <= 1.3 * POSTS
