"""The plain loop: one process reads posts, asks the `openai` client, and writes to pgvector.

`python -m bench.rivals.plain_loop DSN` embeds every post of `posts` into `embeddings`, a thousand
at a time, and prints the seconds it took. It survives nothing and sees no change: it is what one
would write first. Its libraries are the product's own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import openai
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector

from bench.rivals.embeddings_server import DIMENSIONS

MODEL = "text-embedding-3-small"
BATCH = 1000

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS embeddings (
    post_id bigint PRIMARY KEY, embedding vector({DIMENSIONS}) NOT NULL);
CREATE TEMP TABLE incoming (post_id bigint, embedding vector({DIMENSIONS})) ON COMMIT DELETE ROWS
"""

READ = "SELECT id, title, body FROM posts WHERE id > %s ORDER BY id LIMIT %s"
COPY = "COPY incoming (post_id, embedding) FROM STDIN WITH (FORMAT BINARY)"
UPSERT = """
INSERT INTO embeddings SELECT * FROM incoming
ON CONFLICT (post_id) DO UPDATE SET embedding = excluded.embedding
"""


def embed_all(dsn: str) -> float:
    """Embed every post; the seconds it took, from the first read to the last commit."""
    client = openai.OpenAI()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        register_vector(connection)
        started = time.perf_counter()
        last = 0
        while posts := connection.execute(READ, [last, BATCH]).fetchall():
            answer = client.embeddings.create(
                model=MODEL, input=[f"{title}\n\n{body}" for _, title, body in posts]
            )
            write(
                connection, [(p[0], e.embedding) for p, e in zip(posts, answer.data, strict=True)]
            )
            last = posts[-1][0]
        return time.perf_counter() - started


def write(connection: psycopg.Connection[Any], rows: Iterable[tuple[int, list[float]]]) -> None:
    """Insert or replace the embeddings, in one transaction."""
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy(COPY) as copy:
            copy.set_types(["int8", "vector"])
            for post_id, embedding in rows:
                copy.write_row((post_id, Vector(embedding)))
        cursor.execute(UPSERT)


if __name__ == "__main__":
    print(embed_all(sys.argv[1]))
