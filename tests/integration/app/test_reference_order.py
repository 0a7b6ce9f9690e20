"""The reference task and time: changes that come late, rows that change or go meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from app.post_text import content_hash
from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import DIMENSIONS, change, counts, embedded, post, run
from triggerkit import UNCHANGED


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
        application.commit()
    assert api.inputs == []
    assert counts(run(change(1, "text", xid=xid))) == {"embedded": 1, "inputs": 1}


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


def current_xid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT txid_current()").fetchone()
    assert row is not None
    return int(row[0])


def void(_value: object) -> None:
    """Let an expression stand where nothing is returned."""
