"""The embedded servers `dev` starts for what is not set: Postgres, Redis, embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from triggerkit.embedded.embeddings import DIMENSIONS, MODEL
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.supervisor.probes.listening import listen

Server = EmbeddedPostgres | EmbeddedRedis

#: Seconds between tries to start a server again.
RESTART_S = 1.0

#: The key our clients send to the local embeddings server, which asks for none.
LOCAL_API_KEY = "local"


class EmbeddedServers:
    """Starts what the settings do not name, and says so by the environment it adds."""

    def __init__(self, state_dir: Path, settings: Settings) -> None:
        self._postgres = EmbeddedPostgres(state_dir) if settings.database_url is None else None
        has_broker = settings.redis_url is not None or settings.triggerkit_broker_url is not None
        self._redis = None if has_broker else EmbeddedRedis(state_dir)
        is_offline = settings.openai_api_key is None and settings.openai_base_url is None
        has_model = find_spec("wordllama") is not None
        self.embeddings_listener = listen("127.0.0.1", 0) if is_offline and has_model else None
        #: Whether a project that makes embeddings, as its client tells, needs a key.
        self.needs_key = is_offline and not has_model and find_spec("openai") is not None

    async def start(self) -> dict[str, str]:
        """Start the servers and return the settings they stand for."""
        await asyncio.gather(*(server.start() for _, server in self._named()))
        environment: dict[str, str] = {}
        if self._postgres is not None:
            environment["DATABASE_URL"] = self._postgres.url
        if self._redis is not None:
            environment["REDIS_URL"] = self._redis.url
        if self.embeddings_listener is not None:
            port = self.embeddings_listener.getsockname()[1]
            environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
            environment["OPENAI_API_KEY"] = LOCAL_API_KEY
            environment["EMBEDDING_MODEL"] = MODEL
            environment["EMBEDDING_DIMENSIONS"] = str(DIMENSIONS)
        return environment

    @property
    def brings_postgres(self) -> bool:
        """Return whether the database is ours: then its tables are ours to make."""
        return self._postgres is not None

    @property
    def shared_user(self) -> str | None:
        """Return the user that our database runs as, if others may run as that one, too."""
        return None if self._postgres is None else self._postgres.shared_user

    async def keep(self, on_end: Callable[[str], None], on_return: Callable[[str], None]) -> None:
        """Start a server that ends unasked again, and tell of it, until canceled."""
        async with asyncio.TaskGroup() as group:
            for name, server in self._named():
                group.create_task(self._keep_one(name, server, on_end, on_return))

    @staticmethod
    async def _keep_one(
        name: str,
        server: Server,
        on_end: Callable[[str], None],
        on_return: Callable[[str], None],
    ) -> None:
        while True:
            code = await server.wait()
            on_end(f"{name} ended with code {code}; starting it again")
            while True:
                try:
                    await server.start()
                    break
                except (TriggerkitError, OSError) as error:
                    on_end(f"{name} does not start: {error}")
                    await asyncio.sleep(RESTART_S)
            on_return(f"{name} is back")

    async def stop(self, *, force: bool = False) -> None:
        """Stop the servers: Redis first, then Postgres, which the others write to."""
        for _, server in reversed(self._named()):
            await server.stop(force=force)

    def processes(self) -> list[dict[str, Any]]:
        """Return the servers as `status` lists them."""
        return [
            {"name": name, "pid": server.pid, "state": "running" if server.pid else "stopped"}
            for name, server in self._named()
        ]

    def _named(self) -> list[tuple[str, Server]]:
        servers = (("postgres", self._postgres), ("redis", self._redis))
        return [(name, server) for name, server in servers if server is not None]
