"""The reference task on a real Postgres with pgvector and a real HTTP server for the embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import psycopg
import pytest

from app.errors import EmbeddingError
from app.post_embeddings import SETTLE, WRITE
from app.post_text import content_hash
from app.resources import close_resources
from tasks.create_embedding_for_post import Post, create_embedding_for_post
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.app.reference import DIMENSIONS, change, counts, post, reference_tables, run
from triggerkit import UNCHANGED, BatchResult, Change, RetryAfter
from triggerkit.message import Metadata


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


def embedded(database: psycopg.Connection[Any]) -> dict[int, str]:
    """The content hash of every row, by post."""
    return dict(database.execute("SELECT post_id, content_hash FROM post_embeddings").fetchall())


def position(database: psycopg.Connection[Any], post_id: int) -> tuple[int, int, int]:
    row = database.execute(
        "SELECT source_epoch, source_lsn, source_idx FROM post_embeddings WHERE post_id = %s",
        (post_id,),
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_a_new_post_gets_its_vector_hash_model_and_position(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "Title", "Body")
    result = run(change(1, "Title", "Body", at=7))
    assert counts(result) == {"embedded": 1, "inputs": 1}
    assert api.inputs == ["Title\n\nBody"]
    row = database.execute(
        "SELECT embedding::text, content_hash, model, source_epoch, source_lsn, source_idx"
        " FROM post_embeddings WHERE post_id = 1"
    ).fetchone()
    assert row is not None
    (vector,) = api.vectors(["Title\n\nBody"], DIMENSIONS)
    assert [float(n) for n in row[0][1:-1].split(",")] == pytest.approx(vector.tolist())
    assert row[1:] == (content_hash("Title\n\nBody"), "test-model", 1, 7, 0)


def test_vectors_are_asked_for_as_base64(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "a")
    run(change(1, "a"))
    assert [request["encoding_format"] for request in api.requests] == ["base64"]


def test_a_server_that_answers_floats_is_understood(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.only_floats = True
    post(database, 1, "a")
    post(database, 2, "b")
    assert counts(run(change(1, "a"), change(2, "b"))) == {"embedded": 2, "inputs": 2}


def test_vectors_go_to_their_posts_whatever_the_order_of_the_answer(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    for post_id in range(1, 51):
        post(database, post_id, f"text {post_id}")
    run(*(change(post_id, f"text {post_id}") for post_id in range(50, 0, -1)))
    for post_id in range(1, 51):
        (vector,) = api.vectors([f"text {post_id}"], DIMENSIONS)
        row = database.execute(
            "SELECT embedding <-> %s::real[]::vector FROM post_embeddings WHERE post_id = %s",
            (vector.tolist(), post_id),
        ).fetchone()
        assert row is not None
        assert row[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("title", "body"), [(None, None), ("", None), (None, ""), ("", "")])
def test_a_post_without_text_has_no_row(
    database: psycopg.Connection[Any], api: OpenAIServer, title: str | None, body: str | None
) -> None:
    post(database, 1, "text")
    run(change(1, "text", at=1))
    post(database, 1, title, body)
    result = run(change(1, title, body, action="update", at=2))
    assert counts(result) == {"removed": 1}
    assert embedded(database) == {}


def test_an_update_of_other_columns_costs_nothing_and_moves_the_position_on(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    run(change(1, "text", at=1))
    result = run(change(1, "text", action="update", at=2))
    assert counts(result) == {"unchanged": 1}
    assert api.inputs == ["text"]
    assert position(database, 1) == (1, 2, 0)


def test_a_redelivery_costs_nothing(database: psycopg.Connection[Any], api: OpenAIServer) -> None:
    post(database, 1, "text")
    run(change(1, "text"))
    assert counts(run(change(1, "text"))) == {"unchanged": 1}
    assert api.inputs == ["text"]


def test_equal_texts_of_a_batch_are_paid_for_once(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    for post_id in (1, 2, 3):
        post(database, post_id, "same")
    result = run(*(change(post_id, "same") for post_id in (1, 2, 3)))
    assert counts(result) == {"embedded": 3, "inputs": 1}


def test_of_several_changes_of_a_post_only_the_last_is_paid_for(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "third")
    result = run(
        change(1, "first", at=1),
        change(1, "second", action="update", at=2),
        change(1, "third", action="update", at=3),
    )
    assert counts(result) == {"embedded": 1, "inputs": 1}
    assert api.inputs == ["third"]


def test_another_model_embeds_anew(
    database: psycopg.Connection[Any], api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(database, 1, "text")
    run(change(1, "text"))
    monkeypatch.setenv("EMBEDDING_MODEL", "other-model")
    assert counts(run(change(1, "text", action="read"))) == {"embedded": 1, "inputs": 1}


def test_a_late_older_run_changes_nothing_and_costs_nothing(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "new")
    run(change(1, "new", action="update", at=2))
    assert counts(run(change(1, "old", at=1))) == {"superseded": 1}
    assert embedded(database) == {1: content_hash("new")}
    assert api.inputs == ["new"]


def test_an_older_run_that_is_overtaken_during_its_request_changes_nothing(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "new")

    def overtake() -> None:
        api.meanwhile = lambda: None
        database.execute(
            "INSERT INTO post_embeddings VALUES (1, %s, %s, 'test-model', 1, 2, 0)",
            (str([1.0] * DIMENSIONS), content_hash("new")),
        )

    api.meanwhile = overtake
    assert counts(run(change(1, "old", at=1))) == {"superseded": 1, "inputs": 1}
    assert embedded(database) == {1: content_hash("new")}


def test_a_newer_slot_wins_though_its_positions_start_lower(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "new")
    run(change(1, "old", at=1000, epoch=1))
    run(change(1, "new", action="update", at=5, epoch=2))
    assert embedded(database) == {1: content_hash("new")}
    assert counts(run(change(1, "old", at=2000, epoch=1))) == {"superseded": 1}


def test_a_delete_removes_the_row_but_a_late_older_one_does_not(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    run(change(1, "text", at=5))
    assert counts(run(change(1, action="delete", at=4))) == {}
    assert embedded(database) == {1: content_hash("text")}
    assert counts(run(change(1, action="delete", at=6))) == {"removed": 1}
    assert embedded(database) == {}


def test_a_truncate_removes_what_is_older(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    for post_id in (1, 2, 3):
        post(database, post_id, f"text {post_id}")
    run(change(1, "text 1", at=1), change(2, "text 2", at=9))
    nothing: Any = None
    truncate = replace(change(0, action="truncate", at=5), record=nothing)
    run(change(3, "never", at=4), truncate)
    assert embedded(database) == {2: content_hash("text 2")}
    assert "never" not in api.inputs


def test_a_post_that_changes_its_id_leaves_nothing_under_the_old_one(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    run(change(1, "text", at=1))
    database.execute("UPDATE posts SET id = 2 WHERE id = 1")
    run(change(2, "text", action="update", at=2, changes={"id": 1}))
    assert embedded(database) == {2: content_hash("text")}


def test_a_post_deleted_before_its_run_costs_nothing(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    assert counts(run(change(1, "text"))) == {"gone": 1}
    assert api.inputs == []


def test_a_post_deleted_during_the_request_leaves_no_orphan(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    api.meanwhile = lambda: void(database.execute("DELETE FROM posts"))
    assert counts(run(change(1, "text"))) == {"gone": 1, "inputs": 1}
    assert embedded(database) == {}


def test_a_post_that_loses_its_text_during_the_request_gets_no_row(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    api.meanwhile = lambda: post(database, 1, None, "")
    assert counts(run(change(1, "text"))) == {"gone": 1, "inputs": 1}
    assert embedded(database) == {}


@pytest.mark.parametrize(
    "holding", ["DELETE FROM posts WHERE id = 1", "SELECT FROM posts WHERE id = 1 FOR UPDATE"]
)
def test_a_locked_post_is_not_waited_for_but_tried_again_soon(
    database: psycopg.Connection[Any], database_url: str, api: OpenAIServer, holding: str
) -> None:
    post(database, 1, "one")
    post(database, 2, "two")
    first, second = change(1, "one"), change(2, "two")
    with psycopg.connect(database_url) as application:
        application.execute(holding)
        result = run(first, second)
        application.rollback()
    assert counts(result) == {"embedded": 1, "failed": 1, "inputs": 2}
    (failure,) = result.failed
    assert failure.change is first
    assert not failure.permanent
    assert not failure.permanent
    assert embedded(database) == {2: content_hash("two")}
    assert counts(run(first)) == {"embedded": 1, "inputs": 1}


def test_a_post_being_updated_is_written_without_waiting(
    database: psycopg.Connection[Any], database_url: str, api: OpenAIServer
) -> None:
    post(database, 1, "one")
    with psycopg.connect(database_url) as application:
        application.execute("UPDATE posts SET author = 'me' WHERE id = 1")
        assert counts(run(change(1, "one"))) == {"embedded": 1, "inputs": 1}


def test_a_change_that_no_select_sees_yet_is_tried_again_soon(
    database: psycopg.Connection[Any], database_url: str, api: OpenAIServer
) -> None:
    with psycopg.connect(database_url) as application:
        post(application, 1, "text")
        xid = current_xid(application)
        result = run(change(1, "text", xid=xid))
        assert counts(result) == {"failed": 1}
        assert not result.failed[0].permanent
        assert not result.failed[0].permanent
        application.commit()
    assert api.inputs == []
    assert counts(run(change(1, "text", xid=xid))) == {"embedded": 1, "inputs": 1}


def test_a_large_value_the_change_does_not_carry_is_read_from_the_post(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "title", "large body")
    unknown: Any = UNCHANGED
    result = run(change(1, "title", unknown, action="update"))
    assert counts(result) == {"embedded": 1, "inputs": 1}
    assert api.inputs == ["title\n\nlarge body"]
    assert counts(run(change(2, "gone", unknown, action="update"))) == {}


def test_a_message_that_names_an_unchanged_column_is_not_taken_for_null(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "title", "large body")
    message = {
        "record": {"id": 1, "title": "title"},
        "changes": {},
        "action": "update",
        "metadata": {"table_schema": "public", "table_name": "posts", "unchanged": ["body"]},
    }
    run(create_embedding_for_post.payload_type.parse(message))
    assert api.inputs == ["title\n\nlarge body"]


def test_a_value_is_not_read_from_a_row_older_than_the_change(
    database: psycopg.Connection[Any], database_url: str, api: OpenAIServer
) -> None:
    unknown: Any = UNCHANGED
    post(database, 1, "old", "old body")
    with psycopg.connect(database_url) as application:
        post(application, 1, "new", "new body")
        xid = current_xid(application)
        assert counts(run(change(1, "new", unknown, action="update", xid=xid))) == {"failed": 1}
        application.commit()
    run(change(1, "new", unknown, action="update", xid=xid))
    assert api.inputs == ["new\n\nnew body"]


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


@pytest.mark.parametrize("statement", [SETTLE, WRITE])
def test_statements_look_rows_up_by_key_and_never_read_a_table_through(
    database: psycopg.Connection[Any], statement: str
) -> None:
    database.execute(
        "INSERT INTO posts (title) SELECT repeat(md5(n::text), 9) FROM generate_series(1, 20000) n"
    )
    database.execute(
        "INSERT INTO post_embeddings SELECT n, %s::vector, 'hash', 'test-model', 1, 1, 1"
        " FROM generate_series(1, 20000) n",
        (str([1.0] * DIMENSIONS),),
    )
    ids = list(range(1, 257))
    ones, hashes = [1] * len(ids), ["hash"] * len(ids)
    vectors = [str([1.0] * DIMENSIONS)] * len(ids)
    parameters: tuple[Any, ...] = (ids, ones, ones, ones, ones, hashes, "test-model")
    if statement == WRITE:
        parameters = (ids, "test-model", ids, ones, ones, ones, hashes, vectors)
    text_parameters = statement.replace("%b", "%s")
    plan = database.execute(f"EXPLAIN {text_parameters}", parameters).fetchall()
    lines = "\n".join(line for (line,) in plan)
    assert "posts_pkey" in lines
    assert "Seq Scan" not in lines


def test_a_sender_that_tells_no_positions_is_served(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    post(database, 1, "text")
    bare = Metadata(table_schema="public", table_name="posts")
    assert counts(run(Change(Post(id=1, title="text"), None, "insert", bare)))["embedded"] == 1
    assert position(database, 1) == (0, 0, 0)


def current_xid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT txid_current()").fetchone()
    assert row is not None
    return int(row[0])


def void(_value: object) -> None:
    """Let an expression stand where nothing is returned."""
