"""What the reference task does when the server of embeddings refuses, fails or is away."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import psycopg
import pytest

from app.errors import EmbeddingError
from app.post_text import content_hash
from app.resources import close_resources
from tasks.create_embedding_for_post import create_embedding_for_post
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.app.reference import change, counts, embedded, post, run
from triggerkit import BatchResult, RetryAfter


def test_one_bad_text_fails_alone_and_for_good(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    for post_id in range(1, 101):
        post(database, post_id, f"text {post_id}")
    batch = [change(i, "POISON" if i in (13, 14) else f"text {i}") for i in range(1, 101)]
    result = run(*batch)
    assert counts(result) == {"embedded": 98, "failed": 2, "inputs": 98}
    assert [failure.change.record.id for failure in result.failed] == [13, 14]
    assert all(failure.permanent for failure in result.failed)
    assert isinstance(result.failed[0].error, openai.BadRequestError)
    assert len(api.requests) < 30
    assert len(embedded(database)) == 98


def test_a_wrong_setting_is_blamed_on_no_text(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "one")
    post(database, 2, "two")
    api.failures = [Failure(400, "no such model", param="model")]
    with pytest.raises(openai.BadRequestError):
        run(change(1, "one"), change(2, "two"))
    assert len(api.requests) == 1


def test_a_text_too_long_for_the_model_is_cut_until_it_fits(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.max_chars = 2000
    text = "0123456789" * 3000
    post(database, 1, text)
    post(database, 2, "short")
    result = run(change(1, text), change(2, "short"))
    assert counts(result) == {"embedded": 2, "inputs": 2, "cut": {"refusal": 1}}
    assert max(len(text) for text in api.inputs) <= 2000
    assert embedded(database)[1] == content_hash(text)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "7"}, 7),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
    ],
)
def test_a_rate_limit_is_waited_for_as_long_as_the_api_asks(
    database: psycopg.Connection[Any],
    api: OpenAIServer,
    headers: dict[str, str],
    seconds: float,
) -> None:
    post(database, 1, "text")
    api.failures = [Failure(429, headers=headers)]
    with pytest.raises(RetryAfter) as raised:
        run(change(1, "text"))
    assert raised.value.seconds == seconds
    assert len(api.requests) == 1
    assert counts(run(change(1, "text"))) == {"embedded": 1, "inputs": 1}


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_other_failures_of_the_api_are_the_runs_own(
    database: psycopg.Connection[Any], api: OpenAIServer, status: int
) -> None:
    post(database, 1, "text")
    api.failures = [Failure(status)]
    with pytest.raises(openai.APIStatusError) as raised:
        run(change(1, "text"))
    assert raised.value.status_code == status
    assert len(api.requests) == 1


def test_a_server_that_is_away_is_the_runs_own_failure(
    database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    post(database, 1, "text")
    with pytest.raises(openai.APIConnectionError):
        run(change(1, "text"))


def test_what_was_paid_for_before_a_rate_limit_is_kept(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    texts = {post_id: f"{post_id} " + "x" * 20_000 for post_id in range(1, 41)}
    for post_id, text in texts.items():
        post(database, post_id, text)
    batch = [change(post_id, text) for post_id, text in texts.items()]
    api.failures = [None, Failure(429, headers={"retry-after": "1"})]
    with pytest.raises(RetryAfter):
        run(*batch)
    kept = len(embedded(database))
    assert 0 < kept < 40
    assert counts(run(*batch)) == {"unchanged": kept, "embedded": 40 - kept, "inputs": 40 - kept}
    assert sorted(api.inputs) == sorted(texts.values())


def test_vectors_of_wrong_dimensions_name_the_setting(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.dimensions = 8
    post(database, 1, "text")
    with pytest.raises(EmbeddingError, match="8 dimensions, but EMBEDDING_DIMENSIONS is 256"):
        run(change(1, "text"))


def test_a_restarted_database_is_connected_to_again(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "one")
    post(database, 2, "two")

    async def twice() -> BatchResult:
        try:
            await create_embedding_for_post([change(1, "one")])
            database.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return await create_embedding_for_post([change(2, "two")])
        finally:
            await close_resources()

    assert counts(asyncio.run(twice())) == {"embedded": 1, "inputs": 1}
