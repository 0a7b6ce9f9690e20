"""What `triggerkit verify` finds of the reference task, against what the task itself makes."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from tasks.create_embedding_for_post import create_embedding_for_post
from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import change, post, run
from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.supervisor.verify.compare import verifiable
from triggerkit.supervisor.verify.verify import Fixed, Verification, fix, verify

#: Titles and bodies of all kinds; None, "" and white space alone are no text.
TEXTS = [None, "", "a", "a\n\nb", "größe", "漢字", "'quoted' \\n %s", " "]


def look(settings: Settings, wait_s: float | None = None) -> Verification | Fixed:
    """Verify the task, or fix it when `wait_s` is given."""

    async def once() -> Verification | Fixed:
        found = verifiable(create_embedding_for_post)
        client = await Client.open(settings)
        try:
            if wait_s is None:
                return await verify(settings, client, found, 100)
            return await fix(settings, client, found, 100, wait_s)
        finally:
            await client.close()

    return asyncio.run(once())


def found(settings: Settings) -> Verification:
    result = look(settings)
    assert isinstance(result, Verification)
    return result


def test_what_the_task_made_is_in_step_whatever_the_texts_are(
    settings: Settings, database: psycopg.Connection[Any]
) -> None:
    pairs = list(enumerate([(title, body) for title in TEXTS for body in TEXTS], start=1))
    for post_id, (title, body) in pairs:
        post(database, post_id, title, body)
    before = found(settings)
    assert before.problems == {"missing": len(pairs) - 9}
    run(*(change(post_id, title, body) for post_id, (title, body) in pairs))
    after = found(settings)
    assert after.is_true
    assert after.rows == len(pairs)


def test_each_kind_of_damage_is_found_and_fixed_by_the_task(
    settings: Settings, database: psycopg.Connection[Any], state: RunState, api: OpenAIServer
) -> None:
    for post_id in range(1, 7):
        post(database, post_id, f"text {post_id}")
    database.execute(
        "INSERT INTO triggerkit.databases (name, slot_name, publication_name, slot_epoch)"
        " VALUES (current_database(), 'slot', 'publication', 1)"
    )
    # Of a place in the WAL and an epoch as changes have them.
    here = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
    row = database.execute(here).fetchone()
    assert row is not None
    run(*(change(post_id, f"text {post_id}", at=row[0]) for post_id in range(1, 7)))
    assert found(settings).is_true

    database.execute("DELETE FROM post_embeddings WHERE post_id = 1")
    database.execute("UPDATE post_embeddings SET content_hash = 'x' WHERE post_id = 2")
    post(database, 3, "another text")
    database.execute("DELETE FROM posts WHERE id = 4")
    post(database, 5, "", None)
    damaged = found(settings)
    assert {f.key[0]: f.problem for f in damaged.listed} == {
        "1": "missing", "2": "stale", "3": "stale", "4": "orphaned", "5": "orphaned",
    }  # fmt: skip

    with working(state, create_embedding_for_post):
        result = look(settings, wait_s=20)
    assert isinstance(result, Fixed)
    assert result.repair.triggered == 5
    assert result.after.is_true
    assert (result.after.pending, result.after.empty, result.after.in_step) == (0, 1, 4)
    assert sorted(api.inputs[6:]) == ["another text", "text 1", "text 2"]


def test_a_fix_never_undoes_a_newer_change(
    settings: Settings, database: psycopg.Connection[Any], state: RunState
) -> None:
    post(database, 1, "old")
    look(settings, wait_s=0)
    post(database, 1, "new")
    row = database.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row is not None
    run(change(1, "new", action="update", at=row[0], epoch=0))
    with working(state, create_embedding_for_post):
        state.wait_for(lambda: state.statuses() == ["completed"])
    assert found(settings).is_true
