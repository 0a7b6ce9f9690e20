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


def grouped(runs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(queue, run id) pairs as ids by queue, in order."""
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for queue, run_id in runs:
        by_queue[queue].append(run_id)
    return by_queue


class RunQueue:
    """Pushes ids for workers to take. `namespace` keeps installations on one Redis apart."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def push(self, runs: Iterable[tuple[str, str]]) -> bool:
        """Push (queue, run id) pairs; False when Redis is away.

        A push that failed is not lost: the keeper pushes what Redis lacks.
        """
        by_queue = grouped(runs)
        if not by_queue:
            return True
        try:
            if len(by_queue) == 1:
                [(queue, ids)] = by_queue.items()
                await self._client.rpush(queue_key(self._namespace, queue), *ids)
            else:
                pipeline = self._client.pipeline(transaction=False)
                for queue, ids in by_queue.items():
                    pipeline.rpush(queue_key(self._namespace, queue), *ids)
                await pipeline.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("Redis is away (%s); the runs are safe and start when it is back", error)
            return False
        return True
