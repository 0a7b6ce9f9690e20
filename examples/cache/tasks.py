"""Keeps each product as JSON in Redis, so that readers need no database."""

import os
from functools import cache

from pydantic import BaseModel
from redis import ConnectionError as RedisAwayError
from redis import Redis
from redis.commands.core import Script

from triggerkit import Change, Retry, rows, task

#: Sets a product unless a newer version is there, which a late attempt must not overwrite.
SET_IF_NEWER = """
local position = redis.call('HGET', KEYS[1], 'position')
if not position or tonumber(position) <= tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'position', ARGV[1], 'json', ARGV[2])
end
"""


class Product(BaseModel):
    """A row of `products`."""

    id: int
    name: str = ""
    price_cents: int = 0


@cache
def products() -> Redis:
    """The cache: one connection pool for each process, opened at its first use."""
    return Redis.from_url(os.environ.get("CACHE_URL") or os.environ["REDIS_URL"])


@cache
def set_if_newer() -> Script:
    """The script above, which Redis keeps after its first use."""
    return products().register_script(SET_IF_NEWER)


@task(on=rows("public.products"), retry=Retry(wait_for=(RedisAwayError,)))
def cache_product(change: Change[Product]) -> None:
    """Set or remove the product; while Redis is away, wait."""
    position = change.metadata.position or 0
    if change.action == "truncate":
        remove_before(position)
    elif change.action == "delete":
        products().delete(f"product:{change.record.id}")
    else:
        product = change.record
        set_if_newer()(keys=[f"product:{product.id}"], args=[position, product.model_dump_json()])


def remove_before(position: int) -> None:
    """Remove every product that was set before `position`."""
    for key in products().scan_iter(match="product:*", count=1000):
        if int(products().hget(key, "position") or 0) < position:
            products().delete(key)
