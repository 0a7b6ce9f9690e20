"""The reference task as its tests run it: on a real Postgres, with a real server of vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from app.resources import close_resources
from app.schema import apply_schema
from tasks.create_embedding_for_post import Post, create_embedding_for_post
from tests.integration.app.openai_server import OpenAIServer
from triggerkit import BatchResult, Change
from triggerkit.change import Action
from triggerkit.message import Metadata, Ref

DIMENSIONS = 256


@contextmanager
def reference_tables(
    database_url: str,
    api: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    model: str = "test-model",
) -> Iterator[psycopg.Connection[Any]]:
    """The reference tables in an empty database, which the task's settings point to."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("OPENAI_BASE_URL", api.url)
    monkeypatch.setenv("EMBEDDING_MODEL", model)
    monkeypatch.setenv("EMBEDDING_DIMENSIONS", str(DIMENSIONS))
    with psycopg.connect(database_url, autocommit=True) as connection:
        apply_schema(connection, DIMENSIONS)
        yield connection


def post(
    database: psycopg.Connection[Any], post_id: int, title: str | None, body: str | None = None
) -> None:
    """Make the post be as given."""
    database.execute(
        "INSERT INTO posts (id, title, body) VALUES (%s, %s, %s)"
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body",
        (post_id, title, body),
    )


def change(
    post_id: int,
    title: str | None = None,
    body: str | None = None,
    *,
    action: Action = "insert",
    at: int = 100,
    epoch: int = 1,
    xid: int | None = None,
    changes: dict[str, Any] | None = None,
) -> Change[Post]:
    """The message a change of a post makes; `at` is its LSN."""
    metadata = Metadata(
        table_schema="public",
        table_name="posts",
        record_pks=(str(post_id),),
        commit_lsn=at,
        commit_idx=0,
        xid=xid,
        database=Ref(name="test", epoch=epoch),
    )
    record = Post.model_construct(id=post_id, title=title, body=body)
    return Change(record=record, changes=changes, action=action, metadata=metadata)


def embedded(database: psycopg.Connection[Any]) -> dict[int, str]:
    """The content hash of every row, by post."""
    return dict(database.execute("SELECT post_id, content_hash FROM post_embeddings").fetchall())


def position(database: psycopg.Connection[Any], post_id: int) -> tuple[int, int, int]:
    """Where the change of a post's row was in the WAL: epoch, LSN, index."""
    row = database.execute(
        "SELECT source_epoch, source_lsn, source_idx FROM post_embeddings WHERE post_id = %s",
        (post_id,),
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def run(*batch: Change[Post]) -> BatchResult:
    """Run the task on a batch, as a worker would."""

    async def once() -> BatchResult:
        try:
            return await create_embedding_for_post(list(batch))
        finally:
            await close_resources()

    return asyncio.run(once())


def counts(result: BatchResult) -> dict[str, Any]:
    """The output, without its zeros."""
    return {name: count for name, count in result.output.items() if count}
