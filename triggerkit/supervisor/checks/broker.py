"""Check the transport of runs: Redis there, new enough, and forgetting nothing; or RabbitMQ
there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
import redis.asyncio

from triggerkit.configuration.addresses import bracketed
from triggerkit.configuration.certificates import REDIS, certificate_problem
from triggerkit.errors import ConfigurationError
from triggerkit.runs.transport.base import TransportAway
from triggerkit.runs.transport.open import rabbitmq
from triggerkit.runs.transport.redis_rights import RULES, missing_rights
from triggerkit.runs.transport.redis_url import read_redis_url
from triggerkit.settings import Settings
from triggerkit.supervisor.checks.check import Check

MIN_REDIS = (6, 2)

#: Seconds to wait for Redis to accept, and then for its answer.
TIMEOUT_S = 5.0


async def check_broker(settings: Settings) -> list[Check]:
    """Check whether runs can be handed to workers."""
    if settings.triggerkit_broker_url is None:
        return await _check_redis(settings)
    name = "rabbitmq reachable"
    remedy = "correct TRIGGERKIT_BROKER_URL; it looks like amqp://user:password@host:5672/%2F"
    try:
        module = rabbitmq("broker")
        broker = module.IdBroker(settings.rabbitmq_dsn)
    except ConfigurationError as error:
        return [Check(name, False, str(error), remedy)]
    try:
        await asyncio.to_thread(_connect, module, broker)
    except TransportAway as error:
        remedy = "start RabbitMQ, or correct TRIGGERKIT_BROKER_URL and what its user may do"
        return [Check(name, False, str(error), remedy)]
    return [Check(name, True, broker.place)]


def _connect(module: Any, broker: Any) -> None:
    for _ in module.hold(broker):
        return


async def _check_redis(settings: Settings) -> list[Check]:
    name = "redis reachable"
    try:
        dsn = read_redis_url(settings.broker_dsn)
    except ConfigurationError as error:
        remedy = "set REDIS_URL; it looks like redis://:password@host:6379/0"
        return [Check(name, False, str(error), remedy)]
    client = redis.asyncio.Redis.from_url(
        dsn, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S
    )
    try:
        info, lacking = await _info(client), await missing_rights(client)
    except (redis.AuthenticationError, redis.ResponseError) as error:
        remedy = "correct the user and password in REDIS_URL: redis://user:password@host:6379/0"
        return [Check(name, False, str(error), remedy)]
    except (redis.RedisError, OSError) as error:
        remedy = "start Redis, or correct REDIS_URL: rediss:// is with TLS, redis:// without"
        problem = certificate_problem(str(error), REDIS) if dsn.startswith("rediss") else None
        if problem is not None:
            return [Check(name, False, f"{problem[0]}: {error}", f"{problem[1]}: REDIS_URL")]
        return [Check(name, False, str(error), remedy)]
    finally:
        await client.aclose()
    if not info:
        lacking.insert(0, "+info")
    return [Check(name, True, _place(client)), _rights(client, lacking), *_facts(info)]


async def _info(client: redis.asyncio.Redis) -> Mapping[str, Any]:
    """Return what Redis says of itself; nothing where its user may not ask."""
    try:
        return await client.info()
    except redis.exceptions.NoPermissionError:
        return {}


def _rights(client: redis.asyncio.Redis, lacking: Sequence[str]) -> Check:
    """Check whether its user may do all that is to be done."""
    user = client.connection_pool.connection_kwargs.get("username") or "default"
    detail = f"the user {user} lacks {' '.join(lacking)}" if lacking else str(user)
    return Check("redis rights", not lacking, detail, f"ACL SETUSER {user} {RULES}")


def _facts(info: Mapping[str, Any]) -> Iterator[Check]:
    """Check what Redis says of itself."""
    if not info:
        return
    version = str(info["redis_version"])
    is_new = tuple(map(int, version.split(".")[:2])) >= MIN_REDIS
    if own := info.get("valkey_version"):
        version = f"Valkey {own}, as Redis {version}"
    yield Check("redis version", is_new, version, "use Redis 6.2 or later, or Valkey")
    if info.get("role") == "slave":
        detail = "it is a replica, which takes no writes"
        yield Check("redis role", False, detail, "set REDIS_URL to the primary's address")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    keep = "CONFIG SET maxmemory-policy noeviction"
    if "amazon" in str(info.get("os", "")).lower():
        keep = "set maxmemory-policy = noeviction in the parameter group of the cluster"
    yield Check("redis eviction policy", policy == "noeviction", policy, keep)
    yield _durability(info)


def _durability(info: Mapping[str, Any]) -> Check:
    """Tell what Redis keeps over a restart: nothing is lost by it, runs may wait for it."""
    name = "redis durability"
    if info.get("loading") or info.get("async_loading"):
        return Check(name, True, "it loads what it kept", required=False)
    failing = [
        what
        for what, key in (
            ("snapshots", "rdb_last_bgsave_status"),
            ("the append-only file", "aof_last_write_status"),
        )
        if info.get(key, "ok") != "ok"
    ]
    if failing:
        detail = f"writing {' and '.join(failing)} fails, and Redis then refuses writes"
        return Check(name, False, detail, "make room on its disk; its own log says why")
    if info.get("aof_enabled"):
        return Check(name, True, "append-only file", required=False)
    detail = "no append-only file; ids that a restart loses are put back from Postgres"
    return Check(name, True, detail, required=False)


def _place(client: redis.asyncio.Redis) -> str:
    """Return where it is, without its password."""
    place = client.connection_pool.connection_kwargs
    if "path" in place:
        return f"unix://{place['path']}"
    host = str(place.get("host", "localhost"))
    return f"{bracketed(host)}:{place.get('port', 6379)}"
