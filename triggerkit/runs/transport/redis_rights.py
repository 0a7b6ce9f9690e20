"""What the user of Redis has to be allowed, found out by trying it on a key of its own."""

from __future__ import annotations

import re
from secrets import token_hex
from typing import Any, Final

import redis
import redis.asyncio

#: The channel that is listened to, so that a lost connection is noticed.
WATCHED: Final = "triggerkit:watch"

#: The rules of an ACL that allow all that is sent to Redis, and nothing else.
RULES: Final = (
    "~triggerkit:* &triggerkit:watch +ping +info +select +zadd +zrange +zremrangebyrank +bzpopmin "
    "+expire +del +evalsha +script|load +multi +exec +subscribe"
)

#: How Redis names a command that is refused.
_COMMAND: Final = re.compile(r"'([a-z]+)(\|[a-z]+)?'")

#: Refusals that are of no right: it takes no writes, loads its data, or has no such script.
_OTHERWISE: Final = (redis.exceptions.ResponseError, redis.exceptions.BusyLoadingError)

#: Seconds to wait for Redis to say that it listens.
_TIMEOUT_S: Final = 5.0


async def missing_rights(client: redis.asyncio.Redis) -> list[str]:
    """Return the rules that the user of `client` lacks, such as `+zadd`; none where it has all.

    Raises:
        RedisError: Redis is away.
    """
    key = f"triggerkit:check:{token_hex(8)}"
    lacking: list[str] = []
    for rule, words in _tries(key).items():
        try:
            await client.execute_command(*words)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoPermissionError as error:
            lacking.append(_rule_of(error, rule))
        except _OTHERWISE:
            continue
    for rule, attempt in (("+subscribe", _listen), ("+multi +exec", _transact)):
        try:
            await attempt(client, key)
        except redis.exceptions.NoPermissionError as error:
            lacking.append(_rule_of(error, rule))
        except _OTHERWISE:
            continue
    return list(dict.fromkeys(lacking))


def _tries(key: str) -> dict[str, list[Any]]:
    """Return commands by the rules that allow them; in their order they leave nothing behind."""
    return {
        "+ping": ["PING"],
        "+zadd": ["ZADD", key, 0, "check"],
        "+expire": ["EXPIRE", key, 60],
        "+zrange": ["ZRANGE", key, 0, 0],
        "+zremrangebyrank": ["ZREMRANGEBYRANK", key, 1, 1],
        "+bzpopmin": ["BZPOPMIN", key, 0.01],
        "+del": ["DEL", key],
        "+script|load": ["SCRIPT", "LOAD", "return 1"],
        # The digest of that script.
        "+evalsha": ["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0],
    }


def _rule_of(error: Exception, rule: str) -> str:
    said = str(error)
    if "channel" in said:
        return f"&{WATCHED}"
    found = _COMMAND.search(said)
    if found is None:
        return "~triggerkit:*" if "key" in said else rule
    # What opens a connection, such as `select`, comes before what was tried.
    return rule if found[1] in rule else f"+{found[1]}{found[2] or ''}"


async def _listen(client: redis.asyncio.Redis, _: str) -> None:
    async with client.pubsub() as subscription:
        await subscription.subscribe(WATCHED)
        await subscription.get_message(timeout=_TIMEOUT_S)


async def _transact(client: redis.asyncio.Redis, key: str) -> None:
    async with client.pipeline(transaction=True) as transaction:
        # Unlike a ping it is refused for want of a right alone.
        transaction.zrange(key, 0, 0)
        try:
            await transaction.execute()
        except redis.exceptions.NoPermissionError:
            raise
        except redis.exceptions.ResponseError as error:
            # Where MULTI is refused, it is EXEC that fails, for want of it.
            raise redis.exceptions.NoPermissionError("'multi'") from error
