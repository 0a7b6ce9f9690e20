"""The ids of runnable runs in Redis: transport only, Postgres remembers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

import redis
import redis.asyncio

logger = logging.getLogger(__name__)


def queue_key(namespace: str, queue: str) -> str:
    """The Redis list that holds the ids of a queue's runnable runs, oldest first."""
    return f"triggerkit:{namespace}:queue:{queue}"


def push(client: redis.Redis, namespace: str, runs: Iterable[tuple[str, str]]) -> bool:
    """Push (queue, run id) pairs; False when Redis is away.

    A push that failed is not lost: the keeper pushes what Redis lacks.
    """
    try:
        for queue, ids in _grouped(runs).items():
            client.rpush(queue_key(namespace, queue), *ids)
    except redis.RedisError as error:
        _warn(error)
        return False
    return True


class RunQueue:
    """Pushes ids for workers to take. `namespace` keeps installations on one Redis apart."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def push(self, runs: Iterable[tuple[str, str]]) -> bool:
        """See `push`."""
        try:
            for queue, ids in _grouped(runs).items():
                await self._client.rpush(queue_key(self._namespace, queue), *ids)
        except (redis.RedisError, OSError) as error:
            _warn(error)
            return False
        return True


def _grouped(runs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for queue, run_id in runs:
        by_queue[queue].append(run_id)
    return by_queue


def _warn(error: Exception) -> None:
    logger.warning("Redis is away (%s); the runs are safe and start when it is back", error)
