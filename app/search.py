"""Finds posts by their meaning: `python -m app.search "compress files"`."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from textwrap import shorten
from typing import Any, NamedTuple

import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from app.errors import EmbeddingError, NoEmbeddingsError
from app.resources import create_resources, resources
from app.settings import load_settings
from triggerkit.errors import CannotConnect, TriggerkitError

DEFAULT_LIMIT = 5
MAX_LIMIT = 50
EXCERPT_CHARS = 160
CONNECT_TIMEOUT_S = 5

# The posts nearest to a query, by cosine distance; two models do not share a space of meaning.
NEAREST = """
SELECT p.id, p.title, p.author, e.embedding <=> %b AS distance, p.body
FROM post_embeddings AS e JOIN posts AS p ON p.id = e.post_id
WHERE e.model = %b
ORDER BY distance LIMIT %b
"""


class Hit(NamedTuple):
    """A post found. `distance` is 0 for the same meaning and 1 for an unrelated one."""

    post_id: int
    title: str
    author: str
    distance: float
    excerpt: str


async def search(query: str, limit: int = DEFAULT_LIMIT) -> list[Hit]:
    """Find the posts nearest to `query`, best first.

    Raises:
        CannotConnect: the database or the embeddings API does not answer.
        EmbeddingError: the API's answer cannot be used, or does not fit the stored vectors.
        NoEmbeddingsError: no post has an embedding yet.
    """
    own = await resources()
    vector = await own.embedder.embed_query(query)
    try:
        async with own.pool.connection(timeout=CONNECT_TIMEOUT_S) as connection:
            return await nearest(connection, vector, own.settings.embedding_model, limit)
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise CannotConnect("the database does not answer") from error


async def nearest(
    connection: AsyncConnection[Any], vector: Vector, model: str, limit: int
) -> list[Hit]:
    """Find the posts whose embeddings by `model` are nearest to `vector`."""
    try:
        cursor = await connection.execute(NEAREST, (vector, model, limit))
    except psycopg.errors.UndefinedTable as error:
        raise NoEmbeddingsError from error
    except psycopg.DataError as error:
        raise EmbeddingError(f"the query does not fit the stored embeddings: {error}") from error
    rows = await cursor.fetchall()
    if not rows:
        raise NoEmbeddingsError
    return [
        Hit(id_, title or "", author or "", distance, shorten(body or "", EXCERPT_CHARS))
        for id_, title, author, distance, body in rows
        if math.isfinite(distance)
    ]


async def search_once(query: str, limit: int) -> list[Hit]:
    """Like `search`, over a connection of its own: one that fails does so at once."""
    own = create_resources(load_settings())
    try:
        connection = await AsyncConnection.connect(
            own.settings.database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        )
    except psycopg.OperationalError as error:
        raise CannotConnect(f"{error}; is `triggerkit dev` running here?") from error
    async with connection:
        vector = await own.embedder.embed_query(query)
        await register_vector_async(connection)
        return await nearest(connection, vector, own.settings.embedding_model, limit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is found; returns the exit code: 0 found, 1 failed, 4 cannot connect."""
    parser = argparse.ArgumentParser(prog="python -m app.search", description=__doc__)
    parser.add_argument("query", help="what to look for, in your own words")
    parser.add_argument(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        choices=range(1, MAX_LIMIT + 1),
        metavar="N",
        help=f"how many to show, at most {MAX_LIMIT}",
    )
    options = parser.parse_args(arguments)
    try:
        hits = asyncio.run(search_once(options.query, options.limit))
    except TriggerkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank}. {hit.title}  [{hit.author}, distance {hit.distance:.3f}]")
        print(f"   {hit.excerpt}")
    return 0 if hits else 1


if __name__ == "__main__":
    sys.exit(main())
