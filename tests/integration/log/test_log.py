"""The log's guarantees: consecutive positions, durable together, one writer, order per row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import psycopg
import pytest

from triggerkit.change import RowChange, Transaction
from triggerkit.errors import Fenced
from triggerkit.log import reader as reader_module
from triggerkit.log import tables as tables_module
from triggerkit.log.entry import PARTITIONS, Entry, Pending, partition_of
from triggerkit.log.reader import ALL_PARTITIONS, LogReader
from triggerkit.log.writer import LogWriter
from triggerkit.log.writing import Statement
from triggerkit.lsn import Lsn
from triggerkit.state.connect import pool
from triggerkit.values import decoder_for

TRANSACTION = Transaction(Lsn(100), "2026-10-28T21:39:21.127470Z", 777)
HOSTILE = 'tab\t line\n return\r back\\slash "quote" \\N é \u2028 {},'


def pending(number: int, value: str = "v") -> Pending:
    change = RowChange("public", "items", "insert", (str(number),), {"id": number, "v": value})
    return Pending(TRANSACTION, number, change, 777)


@asynccontextmanager
async def reading(url: str, database_id: int, head: int = 0) -> AsyncIterator[LogReader]:
    connections = pool(url, "test", size=2)
    async with connections:
        yield LogReader(connections, database_id, head)


@asynccontextmanager
async def both_ends(url: str, database_id: int) -> AsyncIterator[tuple[LogWriter, LogReader]]:
    """The writer and the reader of a log."""
    async with LogWriter.open(url, database_id) as writer, reading(url, database_id) as reader:
        yield writer, reader


async def read_all(reader: LogReader, head: int) -> list[Entry]:
    found = [await reader.read_stored(p, 0, head, 1000) for p in range(PARTITIONS)]
    return sorted((e for entries in found for e in entries), key=lambda e: e.position)


@pytest.mark.parametrize("others", [0, 1, 7, 50])
def test_what_is_written_is_read_back_as_it_was(
    database_url: str, database_id: int, others: int
) -> None:
    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(others):
                writer.write(pending(number, HOSTILE))
            change = RowChange(
                "sch\tema", 'ta"ble', "update", (HOSTILE, "2"), {"a": None}, {}, ("x,y", HOSTILE)
            )
            writer.write(Pending(TRANSACTION, others, change, None, 3, 4))
            written = await writer.commit(100)
        async with reading(database_url, database_id) as reader:
            assert await read_all(reader, others + 1) == written
        assert [e.position for e in written] == [*range(1, others + 2)]

    asyncio.run(scenario())


@pytest.mark.parametrize("others", [0, 50], ids=["by a statement", "by COPY"])
def test_every_field_of_an_entry_has_a_column_of_its_own(
    database_url: str, database_id: int, others: int
) -> None:
    async def scenario() -> None:
        annotated = Transaction(Lsn(101), TRANSACTION.commit_at, 778, '{"by":"ann"}')
        change = RowChange(
            "sales", "orders", "update", ("1",), {"a": 1}, {"a": 0}, ("big",), "a fault"
        )
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(others):
                writer.write(pending(number))
            writer.write(Pending(annotated, 5, change, 778, 3, 4))
            *_, written = await writer.commit(101)
        assert None not in written
        names = (
            "position, partition, schema_name, table_name, key, action, commit_lsn, commit_idx, "
            "commit_at = %s, xid, record, changes, unchanged, consumer_id, backfill_id, fault, "
            "annotations"
        )
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            cursor = await connection.execute(
                f"SELECT {names} FROM triggerkit.events WHERE position = %s",
                [TRANSACTION.commit_at, others + 1],
            )
            assert await cursor.fetchone() == (
                others + 1, partition_of("sales", "orders", '["1"]'), "sales", "orders", '["1"]',
                "update", 101, 5, True, 778, '{"a":1}', '{"a":0}', ["big"], 3, 4, "a fault",
                '{"by":"ann"}',
            )  # fmt: skip
        async with reading(database_url, database_id) as reader:
            assert (await read_all(reader, others + 1))[-1] == written

    asyncio.run(scenario())


def test_white_space_of_a_json_column_is_the_same_in_memory_and_in_the_table(
    database_url: str,
    database_id: int,
) -> None:
    async def scenario() -> None:
        spaced = decoder_for(114)(b'{"a":\n\t1,\r\n"b": "kept \\n"}')
        change = RowChange("public", "items", "update", ("1",), {"j": spaced}, {"j": spaced})
        async with LogWriter.open(database_url, database_id) as writer:
            writer.write(Pending(TRANSACTION, 0, change))
            written = await writer.commit(100)
        async with reading(database_url, database_id) as reader:
            assert await read_all(reader, 1) == written
        assert orjson.loads(written[0].record or b"")["j"] == {"a": 1, "b": "kept \n"}

    asyncio.run(scenario())


def test_an_append_that_is_not_committed_leaves_nothing(
    database_url: str, database_id: int
) -> None:
    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as writer:
            writer.write(pending(1))
            await writer.flush()
        async with LogWriter.open(database_url, database_id) as writer:
            assert writer.next_position == 1
            writer.write(pending(2))
            await writer.commit(7)
        async with LogWriter.open(database_url, database_id) as writer:
            assert (writer.next_position, writer.last_commit_lsn) == (2, 7)

    asyncio.run(scenario())


def test_a_writer_that_lost_the_log_is_refused(database_url: str, database_id: int) -> None:
    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as old:
            old.write(pending(1))
            async with LogWriter.open(database_url, database_id) as new:
                with pytest.raises(Fenced):
                    await old.commit(100)
                new.write(pending(2))
                assert [e.position for e in await new.commit(100)] == [1]

    asyncio.run(scenario())


def test_a_statement_is_committed_with_the_append_or_not_at_all(
    database_url: str, database_id: int
) -> None:
    async def scenario() -> None:
        rename = Statement("UPDATE triggerkit.databases SET name = %s", ["renamed"])
        async with LogWriter.open(database_url, database_id) as writer:
            writer.write(pending(1))
            await writer.commit(100, [rename])
        with psycopg.connect(database_url) as connection:
            query = "SELECT name, next_position FROM triggerkit.databases"
            assert connection.execute(query).fetchone() == ("renamed", 2)

    asyncio.run(scenario())


def test_an_append_may_cross_table_partitions(
    database_url: str, database_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_module, "TABLE_PARTITION_SIZE", 100)

    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(1000):
                writer.write(pending(number))
                if number % 90 == 0:
                    await writer.flush()
            assert len(await writer.commit(100)) == 1000
        with psycopg.connect(database_url) as connection:
            query = "SELECT count(*), count(DISTINCT tableoid) FROM triggerkit.events"
            assert connection.execute(query).fetchone() == (1000, 11)

    asyncio.run(scenario())


def test_the_tail_in_memory_and_the_table_answer_alike(database_url: str, database_id: int) -> None:
    async def scenario() -> None:
        async with both_ends(database_url, database_id) as (writer, reader):
            for batch in range(5):
                for number in range(batch * 20, batch * 20 + 20):
                    writer.write(pending(number))
                reader.appended(await writer.commit(100 + batch), writer.next_position - 1)
            for partition in range(PARTITIONS):
                for after in (0, 7, 50, 99, 100):
                    stored = await reader.read_stored(partition, after, 100, 3)
                    assert await reader.read(partition, after, 3) == stored

    asyncio.run(scenario())


def test_what_fell_out_of_the_tail_is_read_from_the_table(
    database_url: str, database_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.log.tail.TAIL_BYTES", 10_000)

    async def scenario() -> None:
        async with both_ends(database_url, database_id) as (writer, reader):
            for number in range(200):
                writer.write(pending(number))
                if number % 3 == 0:
                    reader.appended(await writer.commit(number), writer.next_position - 1)
            reader.appended(await writer.commit(200), 200)
            for after in (0, 150, 199):
                found = [await reader.read(p, after, 1000) for p in range(PARTITIONS)]
                positions = sorted(e.position for entries in found for e in entries)
                assert positions == [*range(after + 1, 201)]

    asyncio.run(scenario())


def test_who_waits_is_woken_by_its_own_partition_only(database_url: str, database_id: int) -> None:
    async def scenario() -> None:
        async with both_ends(database_url, database_id) as (writer, reader):
            own = partition_of("public", "items", '["1"]')
            other = next(p for p in range(PARTITIONS) if p != own)
            waiting = asyncio.create_task(reader.wait(own, 0))
            idle = asyncio.create_task(reader.wait(other, 0))
            writer.write(pending(1))
            reader.appended(await writer.commit(100), 1)
            await asyncio.wait_for(waiting, 5)
            assert not idle.done()
            idle.cancel()

    asyncio.run(scenario())


def test_after_an_append_that_was_not_kept_in_memory_everybody_is_woken(
    database_url: str,
    database_id: int,
) -> None:
    async def scenario() -> None:
        async with both_ends(database_url, database_id) as (writer, reader):
            for number in range(100):
                writer.write(pending(number))
            await writer.flush()
            writer.forget()
            writer.write(pending(100))
            reader.appended(await writer.commit(100), 101)
            await asyncio.gather(*(reader.wait(p, 0) for p in range(PARTITIONS)))
            found = [await reader.read(p, 0, 1000) for p in range(PARTITIONS)]
            assert sum(map(len, found)) == 101

    asyncio.run(scenario())


def test_reading_a_partition_uses_the_index(database_url: str, database_id: int) -> None:
    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(5000):
                writer.write(pending(number))
            await writer.commit(100)

    asyncio.run(scenario())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE triggerkit.events")
        plan = connection.execute(
            "EXPLAIN SELECT * FROM triggerkit.events WHERE database_id = 1 AND partition = 3 "
            "AND position > 4000 AND position <= 4500 ORDER BY position LIMIT 500"
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Scan" in text
    assert "Sort" not in text


@pytest.mark.parametrize("kept", [True, False], ids=["memory", "table"])
def test_all_partitions_are_read_in_the_order_of_their_positions(
    database_url: str, database_id: int, kept: bool
) -> None:
    async def scenario() -> None:
        async with both_ends(database_url, database_id) as (writer, reader):
            waiting = asyncio.create_task(reader.wait(ALL_PARTITIONS, 0))
            await asyncio.sleep(0)
            for number in range(100):
                writer.write(pending(number))
            written = await writer.commit(100)
            reader.appended(written if kept else [], 100)
            await asyncio.wait_for(waiting, 5)
            assert len({entry.partition for entry in written}) == PARTITIONS
            assert await reader.read(ALL_PARTITIONS, 0, 1000) == written
            assert await reader.read(ALL_PARTITIONS, 40, 30) == written[40:70]
            assert await reader.read_stored(ALL_PARTITIONS, 40, 60, 30) == written[40:60]
            assert reader.holds(ALL_PARTITIONS, 40, 60) is kept
            assert not reader.holds(ALL_PARTITIONS, 40, 61)

    asyncio.run(scenario())


@pytest.mark.parametrize("partition", [0, ALL_PARTITIONS])
def test_one_read_of_large_entries_is_bounded_in_bytes_and_leaves_none_out(
    database_url: str, database_id: int, partition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "READ_BYTES", 100_000)

    async def scenario() -> None:
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(60):
                writer.write(pending(number, "x" * (250_000 if number == 30 else 20_000)))
            await writer.commit(100)
        async with reading(database_url, database_id, 60) as reader:
            found: list[Entry] = []
            while some := await reader.read(partition, found[-1].position if found else 0, 50):
                assert sum(e.size_bytes for e in some[:-1]) <= 110_000
                found += some
            if partition == 0:
                assert {e.partition for e in found} == {0}
                assert len(found) > 5
            else:
                assert [e.position for e in found] == [*range(1, 61)]

    asyncio.run(scenario())
