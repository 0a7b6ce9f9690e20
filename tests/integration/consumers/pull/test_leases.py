"""Pulled messages are leased: acknowledged, held on to, and handed out again as they were."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.integration.consumers.pull.pulling import NAME, ids, pulling, same_partition
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.definition import changes
from triggerkit.consumers.pull.consumers import NotPulled
from triggerkit.errors import UnknownConsumer


def test_what_is_received_is_leased_and_what_is_acknowledged_is_done(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(range(1, 101))
            first = await pull.receive(60)
            second = await pull.receive(1000)
            assert len(first) == 60
            assert not set(ids(first)) & set(ids(second))
            assert await pull.receive() == []
            assert await pull.ack(first) == []
            third = await pull.receive(1000)
            assert await pull.ack(second + third) == []
            assert sorted(ids(first + second + third)) == list(range(1, 101))
            await pull.expire()
            assert await pull.receive() == []
            assert await pull.execute(
                "SELECT sum(messages)::int, bool_and(answered_at >= sent_at) "
                "FROM triggerkit.deliveries"
            ) == [(100, True)]

    asyncio.run(scenario())


def test_what_is_not_acknowledged_in_time_comes_again_as_it_was(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(same_partition(6))
            first = await pull.receive()
            assert await pull.ack(first[1:3]) == []
            await pull.log(same_partition(8)[6:])
            await pull.expire()
            again = await pull.receive()
            assert ids(again) == [ids(first)[0], *ids(first)[3:]]
            left = [first[0], *first[3:]]
            assert [m.idempotency_key for m in again] == [m.idempotency_key for m in left]
            assert await pull.ack(again) == []
            assert ids(await pull.receive()) == same_partition(8)[6:]

    asyncio.run(scenario())


def test_a_late_acknowledgement_of_what_others_have_is_named_and_changes_nothing(
    database_url: str,
) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            late = await pull.receive()
            await pull.expire()
            again = await pull.receive()
            assert await pull.ack(late) == [late[0].ack_id]
            assert await pull.nack(late) == [late[0].ack_id]
            assert await pull.parked() == []
            assert await pull.ack(again) == []
            assert await pull.ack(again) == [again[0].ack_id]

    asyncio.run(scenario())


def test_a_late_acknowledgement_is_taken_as_long_as_nobody_else_has_the_message(
    database_url: str,
) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            late = await pull.receive()
            await pull.expire()
            assert await pull.ack(late) == []
            assert await pull.receive() == []

    asyncio.run(scenario())


def test_acknowledged_twice_in_one_lease_counts_once(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(same_partition(4))
            received = await pull.receive()
            for given in (received[:2], received[:2], received[:1] + received[:2]):
                assert await pull.ack(given) == []
            await pull.expire()
            assert ids(await pull.receive()) == ids(received)[2:]

    asyncio.run(scenario())


def test_a_range_that_is_left_in_pieces_is_done_to_its_last_message(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            rows = same_partition(20)
            await pull.log(rows)
            received = await pull.receive()
            await pull.ack(received[5:])
            await pull.expire()
            for expected in (rows[:2], rows[2:4], rows[4:5]):
                piece = await pull.receive(2)
                assert ids(piece) == expected
                await pull.ack(piece)
            await pull.log(same_partition(21)[20:])
            assert ids(await pull.receive(1)) == same_partition(21)[20:]

    asyncio.run(scenario())


def test_an_extended_lease_lasts(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, changes("items", timeout_s=0.2)) as pull:
            await pull.log([1])
            received = await pull.receive()
            await pull.puller.extend(NAME, [received[0].ack_id], 60)
            rows = await pull.execute(
                "SELECT lease_until > now() + interval '50 seconds' "
                "FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            )
            assert rows == [(True,)]
            await pull.puller.extend(NAME, [received[0].ack_id], 1)
            assert await pull.execute(
                "SELECT lease_until > now() + interval '40 seconds' "
                "FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            ) == [(True,)]
            assert await pull.puller.extend(NAME, ["0.aaaaaaaaaaaaaaaa.1"], 5) != []

    asyncio.run(scenario())


def test_a_replay_is_not_undone_by_a_late_acknowledgement(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            received = await pull.receive()
            async with await psycopg.AsyncConnection.connect(pull.url, autocommit=True) as state:
                await rewind(state, 1, "beginning")
            assert await pull.ack(received) == [received[0].ack_id]
            again = await pull.receive()
            assert ids(again) == [1]
            assert again[0].idempotency_key != received[0].idempotency_key

    asyncio.run(scenario())


def test_a_caller_that_is_gone_gets_no_lease(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            assert not (await pull.puller.receive(NAME, 1, lambda: True)).messages
            assert ids(await pull.receive()) == [1]

    asyncio.run(scenario())


def test_a_paused_consumer_hands_out_nothing_but_takes_acknowledgements(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1])
            received = await pull.receive()
            await pull.execute("UPDATE triggerkit.consumers SET state = 'paused'")
            with pytest.raises(NotPulled, match="consumers resume items"):
                await pull.receive()
            assert await pull.ack(received) == []
            with pytest.raises(UnknownConsumer, match="known consumers: items"):
                await pull.puller.receive("nobody", 1)

    asyncio.run(scenario())
