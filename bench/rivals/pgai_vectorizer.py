"""pgai's vectorizer in an environment of its own, which is made when it is first needed.

It cannot share the product's: its dependencies are others. Its worker is its own command, set up
as its documentation does for texts of one chunk.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from psycopg import sql

from bench.processes import environment
from bench.project import connect, one
from bench.rivals.embeddings_server import DIMENSIONS
from bench.rivals.own_environment import own_environment

VERSION = "0.12.1"

#: Texts of one request, and requests at a time.
BATCH = 1000
CONCURRENCY = 2

#: Seconds a command may take.
COMMAND_S = 600.0

_CREATE = """
SELECT ai.create_vectorizer(
    'posts'::regclass,
    loading => ai.loading_column('body'),
    chunking => ai.chunking_none(),
    formatting => ai.formatting_python_template('$title $chunk'),
    embedding => ai.embedding_openai('text-embedding-3-small', {dimensions}, base_url => {url}),
    processing => ai.processing_default(batch_size => {batch}, concurrency => {concurrency}),
    scheduling => ai.scheduling_none(),
    destination => ai.destination_table('pgai_embeddings'))
"""


@dataclass(frozen=True)
class Pgai:
    """An installed pgai."""

    environment: Path

    @classmethod
    def install(cls) -> Pgai:
        """Make its environment, or take the one that is there.

        Raises:
            NotInstalled: what the installer said last.
        """
        return cls(own_environment("pgai", f"pgai[vectorizer-worker]=={VERSION}"))

    def prepare(self, dsn: str, api_url: str) -> None:
        """Install its schema and make a vectorizer of `posts`; its queue then holds every post."""
        self._command(["install", "--db-url", dsn], {})
        create = sql.SQL(_CREATE).format(
            dimensions=DIMENSIONS, url=api_url, batch=BATCH, concurrency=CONCURRENCY
        )
        with connect(dsn) as connection:
            connection.execute(create)

    def work(self, dsn: str) -> float:
        """Embed what is queued; when its command ended, in seconds since 1970."""
        settings = {"OPENAI_API_KEY": "none", "TIKTOKEN_CACHE_DIR": str(self._tokens)}
        self._command(["vectorizer", "worker", "--once", "--db-url", dsn], settings)
        return time.time()

    @staticmethod
    def count(dsn: str) -> int:
        """The embeddings it has made."""
        with connect(dsn) as connection:
            return int(one(connection, "SELECT count(*) FROM pgai_embeddings"))

    @cached_property
    def _tokens(self) -> Path:
        """The tokenizers it brings along: without them it would ask the network."""
        [found] = self.environment.glob("lib/python3*/site-packages/pgai/vectorizer/tiktoken_cache")
        return found

    def _command(self, arguments: list[str], settings: Mapping[str, str]) -> None:
        command = [str(self.environment / "bin" / "pgai"), *arguments]
        done = subprocess.run(
            command,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if done.returncode:
            raise RuntimeError(
                f"pgai {arguments[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
