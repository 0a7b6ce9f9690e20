"""Takes run ids from Redis and claims the runs: never more than there are free slots."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from secrets import token_hex
from typing import Any

import psycopg
import redis

from triggerkit.failpoints import reach
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.queue import queue_key
from triggerkit.runs.run import ClaimedRun, is_run_id

logger = logging.getLogger(__name__)

#: Seconds one blocking wait on Redis lasts; longer only delays a stop.
WAIT_S = 1.0

#: Redis answers within so many seconds when something was there already.
AT_ONCE_S = 0.005

#: Seconds after which a claim without an answer is certainly over.
UNANSWERED_S = 60.0

#: Seconds between tries while Redis or Postgres is away.
RETRY_S = 0.5


class Intake:
    """The runs to execute here; one thread calls `next`. A run holds a slot until it is `done`."""

    def __init__(
        self,
        client: redis.Redis,
        open_claims: Callable[[], RunClaims],
        queues: Sequence[str],
        *,
        namespace: str,
        slots: int,
    ) -> None:
        """`open_claims` makes a connection of the intake's own, again after each loss."""
        self._client = client
        self._open_claims = open_claims
        self._keys = deque(queue_key(namespace, queue) for queue in queues)
        #: A list of the intake's own, by which `drain` ends its wait on Redis.
        self._wake_key = f"triggerkit:{namespace}:wake:{token_hex(8)}"
        self._slots = threading.Semaphore(slots)
        self._number_of_slots = slots
        self._claims: RunClaims | None = None
        self._claimed: deque[ClaimedRun] = deque()
        #: The names of claims whose answers did not come, and when they were made.
        self._unanswered: dict[str, float] = {}
        self._draining = threading.Event()
        self._closed = threading.Event()

    def next(self) -> ClaimedRun | None:
        """The next run, or None when none came within `WAIT_S`."""
        if self._draining.is_set() and not self._claimed:
            self._closed.wait(WAIT_S)
            return None
        if not self._claimed and self._slots.acquire(timeout=WAIT_S):
            self._claim()
        return self._claimed.popleft() if self._claimed else None

    def done(self) -> None:
        """A run that `next` gave out has its outcome; its slot is free."""
        self._slots.release()

    def drain(self) -> None:
        """Take no more runs, and wait until those given out are done."""
        self._draining.set()
        with contextlib.suppress(redis.RedisError):
            self._client.rpush(self._wake_key, "wake")
        for _ in range(self._number_of_slots):
            self._slots.acquire()
        with contextlib.suppress(redis.RedisError):
            self._client.delete(self._wake_key)

    def close(self) -> None:
        """Close the connection to Postgres; call it after `drain`."""
        self._closed.set()
        if self._claims is not None:
            self._claims.close()

    def _claim(self) -> None:
        """Wait for a run with one slot in hand, then fill the other free ones too."""
        reserved, claimed = 1, 0
        try:
            if runs := self._given():
                # Their slots are free: they were given back when the answer was lost.
                reserved += sum(self._slots.acquire() for _ in runs[1:])
            elif popped := self._wait():
                reach("run-popped")
                key, first, was_there = popped
                # What came after a wait came alone: asking for more would only delay it.
                while was_there and self._slots.acquire(blocking=False):
                    reserved += 1
                runs = self._claim_in_postgres([first, *self._more(key, reserved - 1)])
                reach("run-claimed")
            claimed = len(runs)
            self._claimed.extend(runs)
        except (redis.RedisError, psycopg.Error) as error:
            # Ids that were taken and not claimed are still queued in Postgres: the keeper pushes
            # them again.
            logger.warning("no runs can be taken (%s); trying again", error)
            self._closed.wait(RETRY_S)
        finally:
            if reserved > claimed:
                self._slots.release(reserved - claimed)

    def _wait(self) -> tuple[str, str, bool] | None:
        """A queue's key, the first id in it and whether that was there at once; None: none came."""
        # Redis looks at the lists in the order given: turned, so that each queue comes first.
        self._keys.rotate(-1)
        started = time.monotonic()
        popped: Any = self._client.blpop([self._wake_key, *self._keys], timeout=WAIT_S)
        if popped is None or popped[0] == self._wake_key:
            return None
        return popped[0], popped[1], time.monotonic() - started < AT_ONCE_S

    def _more(self, key: str, count: int) -> list[str]:
        more: Any = self._client.lpop(key, count) if count else None
        return list(more or ())

    def _claim_in_postgres(self, ids: list[str]) -> list[ClaimedRun]:
        known = [run_id for run_id in ids if is_run_id(run_id)]
        if len(known) < len(ids):
            logger.warning("%d entries in Redis are no ids of runs: dropped", len(ids) - len(known))
        if not known:
            return []
        name = token_hex(8)
        with self._connected() as claims:
            self._unanswered[name] = time.monotonic()
            runs = claims.claim(known, name)
            del self._unanswered[name]
        return runs

    def _given(self) -> list[ClaimedRun]:
        """What was given to us by a claim whose answer was lost with its connection.

        The server may still be at it: it is asked again until nothing can come of it any more.
        """
        for name, asked_at in list(self._unanswered.items()):
            with self._connected() as claims:
                given = claims.given(name)
            if given or time.monotonic() - asked_at > UNANSWERED_S:
                del self._unanswered[name]
            if given:
                return given
        return []

    @contextlib.contextmanager
    def _connected(self) -> Iterator[RunClaims]:
        self._claims = self._claims or self._open_claims()
        try:
            yield self._claims
        except psycopg.Error:
            self._claims.close()
            self._claims = None
            raise
