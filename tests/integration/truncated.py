"""What tests of truncates share: writers of a table, and a copy of it by what is delivered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

from tests.integration.parked import until
from tests.integration.pipeline import execute
from tests.receiver import Received
from triggerkit.consumers.health import consumer_health
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

#: Rows per table that writers write to: in all partitions.
KEYS = 40

ITEMS = "CREATE TABLE items (id bigint PRIMARY KEY, v text)"
OTHERS = "CREATE TABLE others (id bigint PRIMARY KEY, v text)"

Message = dict[str, Any]


def values(requests: Iterable[Received]) -> list[str]:
    """The values in the records, in order of arrival; of a truncate an empty one."""
    return [(m["record"] or {"v": ""}).get("v", "deleted") for r in requests for m in r.messages]


class Copy:
    """Tables as their messages, applied in the order they came, make them."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.truncates = 0

    def apply(self, messages: Iterable[Message]) -> None:
        """Do what these changes did."""
        for message in messages:
            metadata = message["metadata"]
            rows = self.tables.setdefault(metadata["table_name"], {})
            if message["action"] == "truncate":
                self.truncates += 1
                rows.clear()
            elif message["action"] == "delete":
                rows.pop(metadata["record_pks"][0], None)
            else:
                rows[metadata["record_pks"][0]] = message["record"]["v"]


async def write(settings: Settings, tables: list[str], seed: int, rounds: int = 40) -> None:
    """Insert, change, delete and, now and then, truncate."""
    dice = random.Random(seed)
    async with await connect(settings.source_dsn, "test") as source:
        await source.execute("SET search_path = public, pg_catalog")
        for number in range(rounds):
            table = dice.choice(tables)
            if dice.random() < 0.1:
                some = dice.sample(tables, dice.randint(1, len(tables)))
                await source.execute(f"TRUNCATE {', '.join(sorted(some))}")
                continue
            first = dice.randrange(KEYS)
            await source.execute(
                f"INSERT INTO {table} SELECT n, '{seed}.{number}.' || n "
                f"FROM generate_series({first}, {first + dice.randrange(8)}) n "
                "ON CONFLICT (id) DO UPDATE SET v = excluded.v"
            )
            if dice.random() < 0.2:
                await source.execute(f"DELETE FROM {table} WHERE id = {dice.randrange(KEYS)}")


async def rows(settings: Settings, tables: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The tables as they are."""
    found: dict[str, dict[str, Any]] = {}
    async with await connect(settings.source_dsn, "test") as source:
        for table in tables:
            cursor = await source.execute(f"SELECT id::text, v FROM public.{table}")
            found[table] = dict(await cursor.fetchall())
    return found


async def until_all_is_delivered(settings: Settings, timeout_s: float = 60) -> None:
    """Wait until the log has what was written up to now, and no consumer has more to get."""
    await execute(settings, "INSERT INTO items VALUES (9999, 'last')")
    last = "SELECT count(*) FROM triggerkit.events WHERE key = '[\"9999\"]'"
    await until(settings, last, lambda found: found == [(1,)])
    async with asyncio.timeout(timeout_s), await connect(settings.state_dsn, "test") as state:
        while True:
            if not any(consumer.lag_messages for consumer in await consumer_health(state)):
                return
            await asyncio.sleep(0.02)
