"""The posts of the reference project, their embeddings, and what is asked of both."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import psycopg

from tests.acceptance.project import ReferenceProject, eventually

#: Posts whose embedding is missing, of another text, or there without a text.
OUT_OF_STEP = """
SELECT count(*) FROM (
    SELECT id, nullif(concat_ws(E'\\n\\n', nullif(title, ''), nullif(body, '')), '') AS text
    FROM posts) AS p
FULL JOIN post_embeddings AS e ON e.post_id = p.id
WHERE encode(sha256(convert_to(p.text, 'UTF8')), 'hex') IS DISTINCT FROM e.content_hash
"""

#: The texts the embeddings API was paid for, over all runs.
PAID_INPUTS = """
SELECT coalesce(sum((output::jsonb ->> 'inputs')::int), 0) FROM triggerkit.runs
WHERE output::jsonb ? 'inputs'
"""

Connection = psycopg.Connection[tuple[Any, ...]]


def one(connection: Connection, query: str, *parameters: Any) -> Any:
    """The first column of the first row."""
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def content_hash(*parts: str) -> str:
    return hashlib.sha256("\n\n".join(parts).encode()).hexdigest()


def stored_hash(connection: Connection, post_id: int) -> Any:
    """The hash of the text that was embedded for a post, None without an embedding."""
    return one(connection, "SELECT content_hash FROM post_embeddings WHERE post_id = %s", post_id)


def insert_post(connection: Connection, title: str, body: str | None = None) -> int:
    query = "INSERT INTO posts (title, body) VALUES (%s, %s) RETURNING id"
    return int(one(connection, query, title, body))


def wait_for_text(connection: Connection, post_id: int, *parts: str) -> None:
    """Wait until the post's embedding is that of its text in `parts`."""
    wanted = content_hash(*parts)
    eventually(lambda: stored_hash(connection, post_id) == wanted, 10, f"embedding of {post_id}")


def message(record: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
    """A message as Sequin sends it, with fields that triggerkit does not know."""
    return {
        "record": record,
        "changes": None,
        "action": "insert",
        "metadata": {
            "table_schema": "public",
            "table_name": "posts",
            "table_oid": 16401,
            "record_pks": [record.get("id")],
            "commit_timestamp": "2025-10-28T21:39:21.127470Z",
            "commit_lsn": 123456790,
            "commit_idx": 1,
            "transaction_annotations": None,
            "database_name": "blog",
            "consumer": {"id": "f47ac10b-58cc-4372-a567-0e02b2c3d479", "name": "posts_push"},
            **({} if idempotency_key is None else {"idempotency_key": idempotency_key}),
        },
    }


def wait_for_run(project: ReferenceProject, run_id: str) -> dict[str, Any]:
    """The run, once it has ended."""
    finished = "SELECT finished_at FROM triggerkit.runs WHERE id = %s"
    with project.connect() as database:
        eventually(lambda: one(database, finished, run_id), 20, f"the end of {run_id}")
    run: dict[str, Any] = orjson.loads(project.triggerkit("runs", "show", run_id, "--json").stdout)
    return run


def unfinished_runs(connection: Connection) -> Any:
    return one(connection, "SELECT count(*) FROM triggerkit.runs WHERE finished_at IS NULL")
