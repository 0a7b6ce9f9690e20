"""A busy or broken embeddings API destroys no work, is left in peace, and is told of."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.integration.app.busy import live_through
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.app.reference import embedded
from tests.integration.run_state import RunState

POSTS = 2_300


def test_a_busy_api_is_asked_once_a_second_and_then_every_post_gets_its_embedding(
    state: RunState, database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    seen = live_through(state, database, api, posts=POSTS, busy_s=10)
    assert seen.told_after_s < 5
    assert "Rate limit reached" in seen.told
    # Those that began before the first answer, and about one a second.
    assert seen.requests < POSTS / 100 + seen.seconds * 1.2 + 2
    assert len(embedded(database)) == POSTS
    assert len(api.inputs) <= 1.3 * POSTS
    assert set(state.statuses()) == {"completed"}


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_api_that_refuses_or_fails_is_waited_for_as_well(
    state: RunState, database: psycopg.Connection[Any], api: OpenAIServer, status: int
) -> None:
    failure = Failure(status, "not now")
    seen = live_through(state, database, api, posts=300, busy_s=4, failure=failure)
    assert "not now" in seen.told
    assert len(embedded(database)) == 300
    assert len(api.inputs) == 300
    assert set(state.statuses()) == {"completed"}


def test_a_wait_that_is_asked_for_for_ever_is_an_error_of_the_task(
    state: RunState, database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    failure = Failure(429, "slow down", headers={"retry-after": "1"})
    seen = live_through(state, database, api, posts=100, busy_s=4, failure=failure)
    assert "asks to wait 1 s" in seen.told
    assert seen.requests <= 6
    assert len(embedded(database)) == 100
