"""The open clients of this process: the database pool and the embeddings API, one per loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from app.post_embeddings import PostEmbeddings
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.embeddings import Embedder

#: Runs hold a connection for two short statements, never while the API works.
MAX_CONNECTIONS = 4

#: Every statement is about some hundred posts of however many.
BY_INDEX = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"

#: How long a run waits for a connection before it fails, to be tried again.
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What searches and runs share. Connections commit each statement and know vectors."""

    settings: Settings
    embedder: Embedder
    pool: AsyncConnectionPool[AsyncConnection[Any]]

    @asynccontextmanager
    async def post_embeddings(self) -> AsyncIterator[PostEmbeddings]:
        """The table, over a connection that is given back at the end."""
        async with self.pool.connection() as connection:
            yield PostEmbeddings(connection, self.settings.embedding_model)


_open: WeakKeyDictionary[AbstractEventLoop, Resources] = WeakKeyDictionary()


async def resources() -> Resources:
    """The running loop's clients; the first call reads the settings and opens them."""
    loop = get_running_loop()
    if loop not in _open:
        _open[loop] = create_resources(load_settings())
    await _open[loop].pool.open()
    return _open[loop]


async def close_resources() -> None:
    """Close the running loop's clients, if any are open."""
    own = _open.pop(get_running_loop(), None)
    if own is not None:
        await own.pool.close()
        await own.embedder.close()


def create_resources(settings: Settings) -> Resources:
    """Make the clients; the pool still has to be opened."""
    # The openai client takes a second to import, which no process shall wait for at its start.
    from app.embeddings import Embedder

    pool = AsyncConnectionPool(
        settings.database_url,
        # Unprepared, since a plan kept from when the tables were small would be used for long; and
        # by index, since a table that fills up counts as small until it is analyzed.
        kwargs={"autocommit": True, "prepare_threshold": None, "options": BY_INDEX},
        min_size=1,
        max_size=MAX_CONNECTIONS,
        timeout=CONNECT_TIMEOUT_S,
        open=False,
        configure=register_vector_async,
        check=AsyncConnectionPool.check_connection,
        name="reference app",
    )
    return Resources(settings=settings, embedder=Embedder(settings), pool=pool)
