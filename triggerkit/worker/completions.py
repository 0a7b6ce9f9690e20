"""Writes outcomes in bulk: those that come while one transaction commits go into the next."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

import psycopg
import redis

from triggerkit.runs.claim import RunClaims
from triggerkit.runs.queue import grouped, queue_key
from triggerkit.runs.run import Outcome

logger = logging.getLogger(__name__)

#: Most outcomes in one transaction.
MAX_OUTCOMES = 1000

#: Seconds between tries while Postgres is away.
RETRY_S = 0.5


class Completions:
    """A thread that writes outcomes; `put` never blocks."""

    def __init__(
        self, open_claims: Callable[[], RunClaims], client: redis.Redis, namespace: str
    ) -> None:
        """`open_claims` makes a connection of the thread's own, again after each loss."""
        self._open_claims = open_claims
        self._client = client
        self._namespace = namespace
        self._queue: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="completions")

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Have `outcome` written."""
        self._queue.put(outcome)

    def stop(self) -> None:
        """Write what is left, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        claims: RunClaims | None = None
        while True:
            outcomes, ended = self._gather()
            while outcomes:
                try:
                    claims = claims or self._open_claims()
                    self._push(claims.complete(outcomes))
                    break
                except psycopg.OperationalError as error:
                    # Written twice does nothing: the attempt's number fences it.
                    logger.warning("outcomes wait for Postgres (%s)", error)
                    claims = None
                    time.sleep(RETRY_S)
            if ended:
                return

    def _gather(self) -> tuple[list[Outcome], bool]:
        outcomes: list[Outcome] = []
        item = self._queue.get()
        while item is not None:
            outcomes.append(item)
            if len(outcomes) >= MAX_OUTCOMES:
                return outcomes, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return outcomes, False
        return outcomes, True

    def _push(self, runnable: list[tuple[str, str]]) -> None:
        try:
            for name, ids in grouped(runnable).items():
                self._client.rpush(queue_key(self._namespace, name), *ids)
        except redis.RedisError as error:
            logger.warning("Redis is away (%s); the runs start when it is back", error)
