"""A consumer that follows other tables costs nothing per change, and misses nothing of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.parked import TABLE, command, fetch, until
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import changes
from triggerkit.log.buffered import BufferedReader
from triggerkit.log.entry import Entry
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

OTHERS = "CREATE TABLE others (id bigint PRIMARY KEY)"

#: The cursors of a consumer, with the transactions that wrote them.
CURSORS = """
SELECT k.partition, k.position, k.xmin::text FROM triggerkit.cursors k
JOIN triggerkit.consumers c ON c.id = k.consumer_id WHERE c.name = 'quiet' ORDER BY 1
"""


TAKEN = "SELECT coalesce(sum(messages), 0) FROM triggerkit.deliveries WHERE status = 200"


def tables(receiver: Receiver) -> list[str]:
    return [message["metadata"]["table_name"] for message in receiver.messages]


@pytest.mark.parametrize("rows_at_once", [1, 20_000], ids=["alone", "too much to be kept"])
def test_it_neither_reads_nor_writes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    read: list[Any] = []
    read_on = BufferedReader.read_on
    monkeypatch.setattr("triggerkit.consumers.appender.KEPT_BYTES", 1_000_000)

    async def noted(self: BufferedReader, *given: int) -> list[Entry]:
        read.append(self._followed.subjects)
        return await read_on(self, *given)

    monkeypatch.setattr(BufferedReader, "read_on", noted)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, OTHERS)
            await declare(settings, receiver, changes("items", batch_size=1000))
            await declare(settings, receiver, changes("others"), "quiet")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (0, 'first')")
                await receiver.until(lambda: len(receiver.messages) == 1)
                before = await fetch(settings, CURSORS)
                read.clear()
                for first in (1, 1 + rows_at_once):
                    rows = f"generate_series({first}, {first - 1 + rows_at_once})"
                    await execute(settings, f"INSERT INTO items SELECT {rows}, 'x'")
                await receiver.until(lambda: len(receiver.messages) == 1 + 2 * rows_at_once, 60)
                assert ("public", "items") in set().union(*read)
                assert ("public", "others") not in set().union(*read)
                assert await fetch(settings, CURSORS) == before
                # What comes then is delivered, once and at once.
                await execute(settings, "INSERT INTO others SELECT generate_series(1, 50)")
                await receiver.until(lambda: tables(receiver).count("others") == 50)
                # Ended before a cursor is stored, it would push again what came last.
                count = 2 * rows_at_once + 51
                await until(settings, TAKEN, lambda found: found[0][0] >= count)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO others VALUES (51)")
                await receiver.until(lambda: tables(receiver).count("others") >= 51)
            keys = {message["metadata"]["idempotency_key"] for message in receiver.messages}
            assert len(keys) == len(receiver.messages) == 2 * rows_at_once + 52

    asyncio.run(scenario())


def test_how_far_it_is_is_stored_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.supervisor.streaming.retaining.RETENTION_S", 0.5)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, OTHERS)
            await declare(settings, receiver, changes("items"))
            await declare(settings, receiver, changes("others"), "quiet")
            async with streaming(settings, receiver):
                for number in range(1, 5):
                    await _round(settings, receiver, number)
            assert tables(receiver).count("others") == 4

    asyncio.run(scenario())


async def _round(settings: Settings, receiver: Receiver, number: int) -> None:
    rows = f"generate_series({number * 1000}, {number * 1000 + 99})"
    await execute(settings, f"INSERT INTO items SELECT {rows}, 'x'")
    await until(settings, CURSORS, lambda found: min(row[1] for row in found) == 101 * number - 1)
    await execute(settings, f"INSERT INTO others VALUES ({number})")
    await receiver.until(lambda: len(receiver.messages) == 101 * number, 60)


def _of(receiver: Receiver, consumer: str) -> list[int]:
    return [
        int(message["record"]["id"])
        for message in receiver.messages
        if message["metadata"]["consumer"]["name"] == consumer
    ]


async def _until_taken_in(settings: Settings, receiver: Receiver) -> int:
    """Write rows, the first of them 81, until `quiet` gets one; returns how many."""
    for tried in range(1, 20):
        await execute(settings, f"INSERT INTO items VALUES ({80 + tried}, 'x')")
        await receiver.until(lambda number=80 + tried: number in _of(receiver, "busy"))  # type: ignore[misc]
        if 80 + tried in _of(receiver, "quiet"):
            return tried
    pytest.fail("the edit was not taken in")


def test_what_came_before_it_followed_a_table_is_not_for_it(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, OTHERS)
            await declare(settings, receiver, changes("items"), "busy")
            await declare(settings, receiver, changes("others"), "quiet")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items SELECT generate_series(1, 80), 'x'")
                await receiver.until(lambda: len(receiver.messages) == 80)
                async with await connect(settings.source_dsn, "test") as source:
                    declared = [
                        Declared("busy", changes("items"), "/push"),
                        Declared("quiet", changes("others", "items"), "/push"),
                    ]
                    await command(
                        settings,
                        lambda state: apply(source, state, declared, receiver.url, may_lose=True),
                    )
                # The stream takes an edit in a moment later: from then on, all of it is for both.
                tried = await _until_taken_in(settings, receiver)
                await execute(
                    settings,
                    "INSERT INTO items SELECT generate_series(101, 180), 'x'",
                    "INSERT INTO others VALUES (1)",
                )
                await receiver.until(
                    lambda: (
                        {1, *range(101, 181)} <= {*_of(receiver, "quiet")}
                        and len(_of(receiver, "busy")) == 80 + tried + 80
                    )
                )
            found = [one for one in _of(receiver, "quiet") if not 80 < one <= 80 + tried]
            assert sorted(found) == [1, *range(101, 181)]

    asyncio.run(scenario())


def test_consumers_of_one_table_get_the_same_but_for_what_names_them(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
            grouped = changes("items", group_by=["team"])
            for name, definition in (
                ("a", changes("items")),
                ("b", changes("items")),
                ("c", grouped),
            ):
                await declare(settings, receiver, definition, name)
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    "INSERT INTO items SELECT n, 'x\"', n % 3 FROM generate_series(1, 40) n",
                    "UPDATE items SET name = 'y' WHERE id % 2 = 0",
                    "DELETE FROM items WHERE id % 5 = 0",
                )
                await receiver.until(lambda: len(receiver.messages) == 3 * 68)
            seen: dict[str, list[dict[str, Any]]] = {"a": [], "b": [], "c": []}
            for message in sorted(receiver.messages, key=lambda m: m["metadata"]["position"]):
                metadata = message["metadata"]
                consumer = metadata.pop("consumer")
                own, _, rest = metadata.pop("idempotency_key").partition(".")
                assert own == consumer["id"]
                assert metadata.pop("group", None) == (
                    None if consumer["name"] != "c" else f'["{message["record"]["team"]}"]'
                )
                seen[consumer["name"]].append({**message, "key": rest})
            assert seen["a"] == seen["b"] == seen["c"]
            assert len(seen["a"]) == 68

    asyncio.run(scenario())
