"""A Postgres and a Redis that a test may kill, restart and empty."""

from __future__ import annotations

import shutil
from pathlib import Path

import redis

from tests.faults.rig.processes import kill
from tests.servers import Background
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis


class KillableServers:
    """A Postgres and a Redis of the test's own, which it may kill and start again."""

    def __init__(
        self,
        folder: Path,
        postgres: EmbeddedPostgres | None = None,
        redis_server: EmbeddedRedis | None = None,
        background: Background | None = None,
    ) -> None:
        self._background = background or Background()
        self._folder = folder
        self.postgres = postgres or EmbeddedPostgres(folder)
        self.redis = redis_server or EmbeddedRedis(folder)
        self._background.run(self.postgres.start())
        self._background.run(self.redis.start())

    def restart_postgres(self) -> None:
        """An immediate stop, as a crash, and a start that recovers."""
        self._background.run(self.postgres.stop(force=True))
        self._background.run(self.postgres.start())

    def restart_redis(self, *, with_data: bool) -> None:
        """SIGKILL, and a start with or without what it had."""
        assert self.redis.pid is not None
        kill(self.redis.pid)
        self._background.run(self.redis.wait())
        if not with_data:
            shutil.rmtree(self._folder / "redis" / "data")
        self._background.run(self.redis.start())

    def flush_redis(self) -> None:
        """FLUSHALL."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()

    def stop(self) -> None:
        """Stop both."""
        self._background.run(self.redis.stop())
        self._background.run(self.postgres.stop())
