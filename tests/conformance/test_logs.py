"""What holds of the log, be it in Postgres or on Kafka."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.conformance.logs import Log, insert, transaction
from tests.kafka import KafkaServer
from triggerkit.change import RowChange
from triggerkit.errors import Fenced
from triggerkit.log.entry import PARTITIONS, Pending
from triggerkit.log.writing import Statement
from triggerkit.settings import Settings

HOSTILE = 'tab\t line\n return\r back\\slash "quote" \\N é \u2028 {},'


@pytest.fixture(params=["postgres", "kafka"])
def log(settings: Settings, database_id: int, request: pytest.FixtureRequest) -> Log:
    """A database's log, empty."""
    if request.param == "postgres":
        return Log(settings, database_id)
    server: KafkaServer = request.getfixturevalue("kafka_server")
    on_kafka = Settings.parse({**settings.environment(), **server.settings()})
    return Log(on_kafka.model_copy(update={"triggerkit_log": "kafka"}), database_id)


def test_what_is_written_is_read_back_as_it_was(log: Log) -> None:
    change = RowChange(
        "sch\tema", 'ta"ble', "update", (HOSTILE, "2"), {"a": None}, {"b": HOSTILE},
        ("x,y", HOSTILE), "a fault",
    )  # fmt: skip
    truncate = RowChange("public", "items", "truncate", (), None)

    async def scenario() -> None:
        async with log.writer() as writer:
            writer.write(insert(100, 0, 1, HOSTILE))
            writer.write(Pending(transaction(100), 1, change, None, 3, 4))
            writer.write(Pending(transaction(100), 2, truncate, 800))
            await writer.commit(100)
        first, second, third, *echoes = await log.read_all()
        assert (first.position, first.commit_idx, first.xid) == (1, 0, 800)
        assert first.record == orjson.dumps({"id": 1, "v": HOSTILE})
        assert (second.schema, second.table, second.unchanged) == (
            "sch\tema", 'ta"ble', ("x,y", HOSTILE),
        )  # fmt: skip
        assert (second.consumer_id, second.backfill_id, second.fault) == (3, 4, "a fault")
        assert (second.record, second.changes) == (b'{"a":null}', orjson.dumps({"b": HOSTILE}))
        assert third.action == "truncate"
        assert [echo.partition for echo in echoes] == [*range(PARTITIONS)]
        assert {echo.truncate_position for echo in echoes} == {third.position}
        assert log.known() == (12, 100)

    asyncio.run(scenario())


def test_positions_go_on_after_another_writer(log: Log) -> None:
    async def scenario() -> None:
        for lsn in (100, 101, 102):
            async with log.writer() as writer:
                assert writer.last_commit_lsn == (lsn - 1 if lsn > 100 else 0)
                for idx in range(3):
                    writer.write(insert(lsn, idx, idx))
                await writer.commit(lsn)
        entries = await log.read_all()
        assert [entry.position for entry in entries] == [*range(1, 10)]
        assert [entry.commit_lsn for entry in entries] == [100] * 3 + [101] * 3 + [102] * 3

    asyncio.run(scenario())


def test_a_partition_is_read_from_any_position_to_any(log: Log) -> None:
    async def scenario() -> None:
        async with log.writer() as writer:
            for lsn in range(100, 110):
                for idx in range(20):
                    writer.write(insert(lsn, idx, idx))
                await writer.commit(lsn)
        everything = await log.read_all()
        assert len(everything) == 200
        async with log.reader() as reader:
            for partition in (0, 5):
                own = [entry for entry in everything if entry.partition == partition]
                for after, until in ((3, 57), (57, 57), (100, 199), (199, 200), (200, 400)):
                    wanted = [e for e in own if after < e.position <= until]
                    assert await reader.read_stored(partition, after, until, 1000) == wanted
                    assert await reader.read_stored(partition, after, until, 2) == wanted[:2]

    asyncio.run(scenario())


def test_nothing_of_an_append_that_did_not_end_is_seen(log: Log) -> None:
    async def scenario() -> None:
        async with log.writer() as writer:
            writer.write(insert(100, 0, 1))
            await writer.commit(100)
            for idx in range(50):
                writer.write(insert(101, idx, idx))
            await writer.flush()
        async with log.writer() as writer:
            assert (writer.next_position, writer.last_commit_lsn) == (2, 100)
            writer.write(insert(101, 0, 2))
            await writer.commit(101)
        assert [(e.position, e.commit_lsn) for e in await log.read_all()] == [(1, 100), (2, 101)]

    asyncio.run(scenario())


def test_a_writer_that_another_took_over_from_is_refused(log: Log) -> None:
    async def scenario() -> None:
        async with log.writer() as old:
            old.write(insert(100, 0, 1))
            await old.commit(100)
            async with log.writer() as new:
                old.write(insert(101, 0, 2, "of the old one"))
                with pytest.raises(Fenced):
                    await old.commit(101)
                new.write(insert(101, 0, 2, "of the new one"))
                await new.commit(101)
        entries = await log.read_all()
        assert [entry.position for entry in entries] == [1, 2]
        assert entries[1].record == orjson.dumps({"id": 2, "v": "of the new one"})

    asyncio.run(scenario())


def test_what_belongs_to_an_append_is_stored_with_it_or_not_at_all(log: Log) -> None:
    note = Statement("UPDATE triggerkit.databases SET hostname = %s", ["noted"])
    broken = Statement("UPDATE triggerkit.databases SET hostname = 1 / 0 || ''", [])

    async def scenario() -> None:
        async with log.writer() as writer:
            writer.write(insert(100, 0, 1))
            await writer.commit(100, [note])
            writer.write(insert(101, 0, 2))
            with pytest.raises(Exception, match="division by zero"):
                await writer.commit(101, [broken])
        assert log.known() == (2, 100)

    asyncio.run(scenario())
