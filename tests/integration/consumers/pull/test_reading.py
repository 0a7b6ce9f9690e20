"""What is read from the log for a receive: what is wanted, by the index, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.consumers.pull.pulling import NAME, ids, messages, pulling, same_partition
from triggerkit import Change
from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.definition import changes
from triggerkit.consumers.pull import reading
from triggerkit.consumers.render import Renderer
from triggerkit.log.entry import Pending
from triggerkit.log.reader import ALL_PARTITIONS, LogReader
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn


def only_even(change: Change[Any]) -> bool:
    return bool(change.record["id"] % 2 == 0)


def test_messages_that_nobody_wants_are_passed_over_without_a_lease(database_url: str) -> None:
    async def scenario() -> None:
        definition = changes("items", filter=only_even)
        async with pulling(database_url, definition) as pull:
            await pull.log([n for n in range(1, 4000) if n % 2])
            assert await pull.receive(10) == []
            assert await pull.execute(
                "SELECT count(*)::int FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            ) == [(0,)]
            await pull.log([2])
            received = await pull.receive(10)
            assert ids(received) == [2]
            await pull.ack(received)

    asyncio.run(scenario())


def test_the_log_is_read_on_by_its_index_and_in_its_order(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(range(5000))
            async with pull.puller._pool.connection() as connection:
                given = {"consumer_id": 1, "database_id": 1, "limit": 10, "most_bytes": 1000}
                for statement in (*reading.READ_PARTITIONS, *reading.READ_WHOLE):
                    cursor = await connection.execute(
                        f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) {statement}", given
                    )
                    plan = "\n".join(line for (line,) in await cursor.fetchall())
                    assert "Bitmap" not in plan
                    assert "Seq Scan on events" not in plan
                    assert "rows=5000" not in plan, plan

    asyncio.run(scenario())


def test_an_answer_and_what_is_read_for_it_are_bounded_in_bytes(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            rows = same_partition(12)
            await pull.log(rows, body="x" * 1024 * 1024)
            async with pull.puller._pool.connection() as connection:
                given = {"consumer_id": 1, "database_id": 1, "limit": 1000, "most_bytes": 1000}
                small, large = reading.READ_PARTITIONS
                cursor = await connection.execute(small, given, binary=True)
                read = [row for row in await cursor.fetchall() if row[0] is not None]
                assert [(row[10], row[reading.IS_CUT]) for row in read] == [(None, True)] * 12
                cursor = await connection.execute(large, given, binary=True)
                assert sum(row[0] is not None for row in await cursor.fetchall()) == 8
            first = await pull.receive(1000)
            await pull.ack(first)
            assert ids(first) + ids(await pull.receive(1000)) == rows

    asyncio.run(scenario())


def test_a_message_is_the_same_whether_it_is_pulled_or_pushed(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            at = "2026-10-28T21:39:21.000000Z"
            plain = Transaction(Lsn(1), at, 7)
            told = Transaction(Lsn(2), "2026-10-28T21:39:21.127470Z", 8, '{"by":"ü"}')
            new, key = {"id": 1, "v": 'ä\\"☃'}, ("1",)
            logged = [
                Pending(plain, 0, RowChange("public", "items", "insert", key, new), 7),
                Pending(plain, 1, RowChange("public", "others", "insert", key, new), 7),
                Pending(plain, 2, RowChange("public", "items", "update", key, new, {"v": None}), 7),
                Pending(told, 0, RowChange("public", "items", "update", key, new, None, ("t",)), 8),
                Pending(told, 1, RowChange("public", "items", "delete", ('"é',), new)),
                Pending(told, 2, RowChange("public", "items", "truncate", (), None), 8),
                Pending(told, 3, RowChange("public", "others", "insert", key, new), None, 1, 5),
                Pending(told, 4, RowChange("public", "items", "insert", key, new), None, 2, 6),
            ]
            async with LogWriter.open(database_url, 1) as writer:
                for pending in logged:
                    writer.write(pending)
                await writer.commit(len(logged))
                head = writer.next_position - 1
            reader = LogReader(pull.puller._pool, 1, head)
            entries = await reader.read_stored(ALL_PARTITIONS, 0, head, 100)
            async with pull.puller._pool.connection() as connection:
                pulled = await pull.puller._consumers.get(connection, NAME)
            message = Renderer(pulled.consumer).message
            wanted = [
                message(entry)
                for entry in entries
                if not entry.is_echo and entry.position not in (2, head)
            ]
            sent = []
            while received := await pull.puller.receive(NAME, 100):
                if not received.messages:
                    break
                sent += [b"{" + one.partition(b",")[2] for one in received.messages]
                await pull.ack(messages(received))
            assert sorted(sent) == sorted(wanted)

    asyncio.run(scenario())


def test_a_change_of_the_consumer_is_seen_by_the_next_receive(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            received = await pull.receive()
            await pull.ack(received)
            await pull.execute(
                "UPDATE triggerkit.consumers SET definition = jsonb_set(definition, '{actions}', "
                "'[\"delete\"]')"
            )
            await pull.log([1])
            await pull.log([1], "delete")
            assert [m.json["action"] for m in await pull.receive()] == ["delete"]

    asyncio.run(scenario())
