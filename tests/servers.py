"""Real servers for the tests: one Postgres and one Redis a session, a fresh database a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from psycopg import sql

from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.state.migrate import migrate

T = TypeVar("T")

#: The database every test's database is a copy of.
TEMPLATE = "template_triggerkit"


class Background:
    """An event loop in a thread, for what lives longer than a test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class Servers:
    """The session's servers, started at the first use of one."""

    def __init__(self, folder: Path) -> None:
        self._background = Background()
        self.postgres = EmbeddedPostgres(folder)
        self.redis = EmbeddedRedis(folder)

    def start(self) -> None:
        """Start both and make the template: pgvector and the schema `triggerkit`."""
        self._background.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which is about a server, on the event loop that the servers have."""
        return self._background.run(work)

    def stop(self) -> None:
        """Stop both."""
        self._background.run(self.redis.stop())
        self._background.run(self.postgres.stop())

    def new_database(self) -> str:
        """A copy of the template: a connection string to a database of its own."""
        name = f"test_{uuid4().hex[:12]}"
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(TEMPLATE)
                )
            )
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Drop a test's database, its slots and whoever is still connected."""
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = %s AND NOT active",
                [name],
            )
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    async def _start(self) -> None:
        await asyncio.gather(self.postgres.start(), self.redis.start())
        async with await psycopg.AsyncConnection.connect(
            self.postgres.url, autocommit=True
        ) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        async with await psycopg.AsyncConnection.connect(
            self._url(TEMPLATE), autocommit=True
        ) as connection:
            await connection.execute("CREATE EXTENSION vector")
            await migrate(connection)
            # A template is copied as it is: its installation must be each copy's own.
            await connection.execute("DELETE FROM triggerkit.installation")

    def _url(self, database: str) -> str:
        base, _, query = self.postgres.url.partition("?")
        return f"{base.rpartition('/')[0]}/{database}?{query}"
