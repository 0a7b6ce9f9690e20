"""What the reference task writes for a change, and what it pays for it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from app.post_embeddings import SETTLE, WRITE
from app.post_text import content_hash
from tasks.create_embedding_for_post import Post, create_embedding_for_post
from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import (
    DIMENSIONS,
    change,
    counts,
    embedded,
    position,
    post,
    run,
)
from triggerkit import UNCHANGED, Change
from triggerkit.message import Metadata


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
