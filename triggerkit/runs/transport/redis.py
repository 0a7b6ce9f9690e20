"""Ready runs in Redis: a sorted set for each task, ordered by the runs' ranks.

An id is in it once, however often it is pushed, and runs of higher priority come first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from secrets import token_hex
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from triggerkit.runs.run import ReadyRun
from triggerkit.runs.transport.base import Room, Source, Taken, TransportAway, warn_away
from triggerkit.runs.transport.outage import Outage

#: Seconds one blocking wait may last: an idle worker asks no more often. Its end can be woken.
WAIT_S = 5.0

#: Seconds Redis may take to answer before it counts as away.
TIMEOUT_S = 2.0

#: Connections of one event loop; who comes while all are in use waits for one.
CONNECTIONS = 16

#: Redis answers within so many seconds when something was there already.
AT_ONCE_S = 0.005

#: Other tasks that are looked at when a task has fewer runs than there is room for.
MOST_OTHERS = 100

#: Takes ids of several tasks, as long as there are free slots: of each task as many to a slot as
#: its runs are short.
_POP = """
local slots, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local popped = {}
for number, key in ipairs(KEYS) do
    if slots <= 0.001 or most <= 0 then break end
    local each = tonumber(ARGV[number + 2])
    local count = math.min(math.ceil(slots * each), most)
    local ids = redis.call('ZRANGE', key, 0, count - 1)
    if #ids > 0 then
        redis.call('ZREMRANGEBYRANK', key, 0, count - 1)
        popped[#popped + 1] = {number, ids}
        slots = slots - #ids / each
        most = most - #ids
    end
end
return popped
"""

#: Errors of a server that takes no writes: another connection may lead to the new primary.
_OTHER_SERVER: list[type[Exception]] = [redis.ReadOnlyError]

#: What Redis or the way to it can raise.
_AWAY = (redis.RedisError, OSError)


def task_key(namespace: str, task: str) -> str:
    """Return the sorted set of the ids of a task's ready runs."""
    return f"triggerkit:{namespace}:task:{task}"


class RedisTransport:
    """See `Transport`. `namespace` keeps installations on one Redis apart."""

    def __init__(self, url: str, namespace: str) -> None:
        # Who waits for runs is patient, who pushes is not: others wait for it meanwhile.
        self._waiting = _client(url, WAIT_S + TIMEOUT_S)
        self._client = _client(url, TIMEOUT_S)
        self._namespace = namespace
        self._outage = Outage()

    def push(self, runs: Iterable[ReadyRun]) -> bool:
        """See `Transport.push`."""
        if not self._outage.may_ask():
            return False
        began = time.monotonic()
        try:
            pushes = self._client.pipeline(transaction=False)
            for task, ranks in _by_task(runs).items():
                pushes.zadd(task_key(self._namespace, task), ranks)
            pushes.execute()
        except _AWAY as error:
            self._outage.failed(began)
            warn_away("Redis", error)
            return False
        self._outage.answered()
        return True

    def first_ranks(self, tasks: Sequence[str]) -> Mapping[str, float]:
        """See `Transport.first_ranks`."""
        looks = self._client.pipeline(transaction=False)
        for task in tasks:
            looks.zrange(task_key(self._namespace, task), 0, 0, withscores=True)
        try:
            found: Any = looks.execute()
        except _AWAY as error:
            raise TransportAway(str(error)) from error
        return {
            task: float(first[0][1]) if first else math.inf
            for task, first in zip(tasks, found, strict=True)
        }

    def source(self, tasks: Sequence[str]) -> Source:
        """See `Transport.source`."""
        return RedisSource(self._waiting, self._namespace, tasks)

    def close(self) -> None:
        """See `Transport.close`."""
        self._waiting.close()
        self._client.close()


class RedisSource:
    """See `Source`."""

    def __init__(self, client: redis.Redis, namespace: str, tasks: Sequence[str]) -> None:
        self._client = client
        self._tasks = {task_key(namespace, task): task for task in tasks}
        self._keys = deque(self._tasks)
        self._wake_key = f"triggerkit:{namespace}:wake:{token_hex(8)}"
        self._key = ""
        self._pop = client.register_script(_POP)

    def take(self, timeout_s: float) -> Taken | None:
        """See `Source.take`."""
        # Redis looks at the sets in the order given: turned, so that each task comes first.
        self._keys.rotate(-1)
        started = time.monotonic()
        try:
            popped: Any = self._client.bzpopmin(
                [self._wake_key, *self._keys], timeout=min(timeout_s, WAIT_S)
            )
        except _AWAY as error:
            raise TransportAway(str(error)) from error
        if popped is None or popped[0] == self._wake_key:
            return None
        self._key, run_id, _ = popped
        return Taken(self._tasks[self._key], [run_id], time.monotonic() - started < AT_ONCE_S)

    def more(self, count: int) -> list[str]:
        """See `Source.more`."""
        if count <= 0:
            return []
        # ZPOPMIN answers with ranks beside the ids: to read those takes longer than all of this.
        pops = self._client.pipeline(transaction=True)
        pops.zrange(self._key, 0, count - 1)
        pops.zremrangebyrank(self._key, 0, count - 1)
        try:
            run_ids, _ = pops.execute()
        except _AWAY as error:
            raise TransportAway(str(error)) from error
        return list(run_ids)

    def others(self, room: Room) -> list[Taken]:
        """See `Source.others`."""
        if not room.is_left or len(self._keys) < 2:
            return []
        # Those whose turns come next.
        keys = list(islice(self._keys, 1, 1 + MOST_OTHERS))
        tasks = [self._tasks[key] for key in keys]
        try:
            popped: Any = self._pop(keys, [room.slots, room.most, *map(room.each, tasks)])
        except _AWAY as error:
            raise TransportAway(str(error)) from error
        self._keys.rotate(-(popped[-1][0] if popped else len(keys)))
        return [Taken(tasks[number - 1], ids, True) for number, ids in popped]

    def acknowledge(self) -> None:
        """Nothing to do: the keeper knows what was taken and not claimed."""

    def wake(self) -> None:
        """See `Source.wake`."""
        with contextlib.suppress(*_AWAY):
            self._client.zadd(self._wake_key, {"wake": 0})
            self._client.expire(self._wake_key, 60)

    def close(self) -> None:
        """See `Source.close`."""
        with contextlib.suppress(*_AWAY):
            self._client.delete(self._wake_key)


class AsyncRedisTransport:
    """See `AsyncTransport`."""

    name = "redis"

    def __init__(self, url: str, namespace: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=AsyncRetry(NoBackoff(), 1),
            retry_on_error=_OTHER_SERVER,
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._namespace = namespace
        self._outage = Outage()

    async def push(self, runs: Iterable[ReadyRun]) -> bool:
        """See `AsyncTransport.push`."""
        if not self._outage.may_ask():
            return False
        began = time.monotonic()
        try:
            pushes = self._client.pipeline(transaction=False)
            for task, ranks in _by_task(runs).items():
                pushes.zadd(task_key(self._namespace, task), ranks)
            await pushes.execute()
        except _AWAY as error:
            self._outage.failed(began)
            warn_away("Redis", error)
            return False
        self._outage.answered()
        return True

    async def check(self) -> None:
        """See `AsyncTransport.check`."""
        try:
            await self._client.ping()
        except _AWAY as error:
            raise TransportAway(str(error)) from error

    async def close(self) -> None:
        """See `AsyncTransport.close`."""
        await self._client.aclose()


def _client(url: str, timeout_s: float) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=_OTHER_SERVER,
        decode_responses=True,
        encoding_errors="replace",
    )


def _by_task(runs: Iterable[ReadyRun]) -> dict[str, Any]:
    ranks: defaultdict[str, Any] = defaultdict(dict)
    for task, run_id, rank in runs:
        ranks[task][run_id] = rank
    return ranks
