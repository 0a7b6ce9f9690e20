"""What the reference task does when the server of embeddings refuses, fails or is away."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import psycopg
import pytest

from app.errors import EmbeddingsAwayError
from app.post_text import content_hash
from app.resources import close_resources
from tasks.create_embedding_for_post import create_embedding_for_post
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.app.reference import change, counts, embedded, post, run
from triggerkit import BatchResult, RetryAfter
from triggerkit.errors import ConfigurationError


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


@pytest.mark.parametrize("param", ["model", ["model"]], ids=str)
def test_a_wrong_setting_is_blamed_on_no_text(
    database: psycopg.Connection[Any], api: OpenAIServer, param: str | list[str]
) -> None:
    post(database, 1, "one")
    post(database, 2, "two")
    api.failures = [Failure(400, "no such model", param=param)]
    with pytest.raises(EmbeddingsAwayError, match="no such model"):
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


def test_a_wait_that_is_only_in_the_text_of_a_rate_limit_counts_too(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    api.failures = [Failure(429, "Rate limit reached. Please try again in 1m2.5s. Visit …")]
    with pytest.raises(EmbeddingsAwayError) as raised:
        run(change(1, "text"))
    assert raised.value.seconds == 62.5


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 500, 503, 529])
def test_an_answer_that_depends_on_no_text_is_waited_for(
    database: psycopg.Connection[Any], api: OpenAIServer, status: int
) -> None:
    post(database, 1, "text")
    api.failures = [Failure(status, "the reason")]
    with pytest.raises(EmbeddingsAwayError, match="the reason") as raised:
        run(change(1, "text"))
    assert create_embedding_for_post.retry.waits_for(raised.value)
    assert isinstance(raised.value.__cause__, openai.APIStatusError)
    assert len(api.requests) == 1


def test_a_server_that_is_away_is_waited_for_and_named(
    database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    post(database, 1, "text")
    with pytest.raises(
        EmbeddingsAwayError, match=r"does not answer at http://127\.0\.0\.1:1/v1 \("
    ):
        run(change(1, "text"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("failure", [None, Failure(503)])
def test_an_answer_that_never_ends_is_waited_for_like_a_server_that_is_away(
    database: psycopg.Connection[Any],
    api: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    failure: Failure | None,
) -> None:
    monkeypatch.setattr("app.embeddings.TIMEOUT_S", 0.5)
    post(database, 1, "text")
    api.drips, api.failures = True, [failure]
    with pytest.raises(
        EmbeddingsAwayError, match=r"does not answer at .* \(no whole answer within"
    ):
        run(change(1, "text"))
    api.drips = False
    assert counts(run(change(1, "text"))) == {"embedded": 1, "inputs": 1}


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "nonsense"])
def test_what_is_on_this_machine_is_asked_without_a_proxy(
    database: psycopg.Connection[Any],
    api: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    proxy: str,
) -> None:
    monkeypatch.setenv(name, proxy)
    post(database, 1, "text")
    assert counts(run(change(1, "text"))) == {"embedded": 1, "inputs": 1}


def test_a_proxy_that_is_in_the_way_is_named_by_its_variable(
    database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.invalid/v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    post(database, 1, "text")
    with pytest.raises(EmbeddingsAwayError, match="through the proxy of HTTP_PROXY"):
        run(change(1, "text"))


def test_a_proxy_of_which_no_client_can_be_made_is_waited_for_and_named(
    database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.invalid/v1")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    post(database, 1, "text")
    with pytest.raises(ConfigurationError, match="ALL_PROXY") as raised:
        run(change(1, "text"))
    assert create_embedding_for_post.retry.waits_for(raised.value)


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
