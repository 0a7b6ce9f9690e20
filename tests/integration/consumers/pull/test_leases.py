"""Pulled consumers: leases, acknowledgements, messages handed back, and order per key."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import defaultdict
from typing import Any

import psycopg
import pytest

from tests.integration.consumers.pull.pulling import NAME, Message, Pulling, pulling
from triggerkit import Change
from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import retry_parked
from triggerkit.consumers.pull import receive
from triggerkit.consumers.pull.consumers import NotPulled
from triggerkit.consumers.render import Renderer
from triggerkit.errors import UnknownConsumer
from triggerkit.log.entry import PARTITIONS, Pending, partition_of
from triggerkit.log.reader import ALL_PARTITIONS, LogReader
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn


def same_partition(count: int, like: int = 1) -> list[int]:
    """The first rows that share the partition of row `like`, itself among them."""
    partition = partition_of("public", "items", f'["{like}"]')
    found = [n for n in range(1, 5000) if partition_of("public", "items", f'["{n}"]') == partition]
    return found[:count]


def ids(received: list[Message]) -> list[int]:
    return [message.id for message in received]


def only_even(change: Change[Any]) -> bool:
    return bool(change.record["id"] % 2 == 0)


#: The rows that `failing_at_three` fails at.
failing = frozenset({3})


def failing_at_three(change: Change[Any]) -> dict[str, Any]:
    if change.record["id"] in failing:
        raise ValueError(change.record)
    return {"row": change.record["id"]}


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


def test_what_is_handed_back_comes_after_its_delay_and_its_key_waits(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            one, other = same_partition(2)
            await pull.log([one, other])
            received = await pull.receive()
            assert await pull.nack(received[:1], delay_s=60) == []
            await pull.ack(received[1:])
            await pull.log([one, other, one])
            behind = await pull.receive()
            assert ids(behind) == [other]
            await pull.ack(behind)
            assert [(state, tries) for _, state, tries in await pull.parked()] == [
                ("failing", 1), ("waiting", 0), ("waiting", 0)
            ]  # fmt: skip
            await pull.expire()
            order = []
            for _ in range(3):
                due = await pull.receive()
                assert await pull.receive() == []
                order += [(m.id, m.version) for m in due]
                assert await pull.ack(due) == []
            assert order == [(one, 0), (one, 2), (one, 4)]
            assert await pull.parked() == []
            assert due[0].json["ack_id"].startswith("p")

    asyncio.run(scenario())


def test_of_several_handed_back_of_one_key_the_first_comes_first(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1, 1, 1])
            received = await pull.receive()
            await pull.nack(received[2:])
            assert await pull.receive() == [], "an earlier one of its key is still held"
            await pull.nack(received[1:2])
            await pull.nack(received[:1])
            versions = []
            for _ in range(3):
                due = await pull.receive()
                versions += [m.version for m in due]
                await pull.ack(due)
            assert versions == [0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize(("policy", "state"), [("block", "blocked"), ("skip", "dead")])
def test_attempts_that_are_used_up_block_the_key_or_let_it_go(
    database_url: str, policy: Any, state: str
) -> None:
    async def scenario() -> None:
        definition = changes("items", max_attempts=2, on_exhausted=policy)
        async with pulling(database_url, definition) as pull:
            await pull.log([1, 2])
            one = [m for m in await pull.receive() if m.id == 1]
            await pull.nack(one)
            await pull.log([1])
            again = await pull.receive()
            await pull.nack([m for m in again if m.id == 1])
            assert (await pull.parked())[0][1:] == (state, 2)
            behind = [m.version for m in await pull.receive() if m.id == 1]
            assert behind == ([] if policy == "block" else [2])

    asyncio.run(scenario())


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


def test_a_transform_s_result_stands_under_message_and_its_failures_are_set_aside(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        definition = changes("items", transform=failing_at_three)
        async with pulling(database_url, definition) as pull:
            await pull.log([2, 3, 3])
            received = await pull.receive()
            assert [m.json["message"] for m in received] == [{"row": 2}]
            assert await pull.ack(received) == []
            assert [state for _, state, _ in await pull.parked()] == ["blocked", "waiting"]
            reasons = await pull.execute("SELECT reason FROM triggerkit.parked ORDER BY position")
            assert reasons[0] == ("the transform raised ValueError",)
            monkeypatch.setattr(sys.modules[__name__], "failing", frozenset())
            async with await psycopg.AsyncConnection.connect(pull.url, autocommit=True) as state:
                assert await retry_parked(state, NAME, "test", position=2) == 1
            mended = await pull.receive()
            assert [m.json["message"] for m in mended] == [{"row": 3}]
            assert await pull.ack(mended) == []
            assert [m.json["message"] for m in await pull.receive()] == [{"row": 3}]

    asyncio.run(scenario())


def test_a_group_s_messages_are_in_order_over_all_partitions(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, changes("items", group_by=["owner"])) as pull:
            await pull.log(range(1, 41), owner="a")
            await pull.log([41], owner="b")
            received = await pull.receive(30)
            assert [m.version for m in received] == list(range(30))
            assert await pull.receive() == []
            await pull.nack(received[:1])
            await pull.ack(received[1:])
            assert [m.id for m in await pull.receive(1)] == [1]
            rest = await pull.receive(100)
            assert ids(rest) == [41]

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
            with pytest.raises(UnknownConsumer, match="there are items"):
                await pull.puller.receive("nobody", 1)

    asyncio.run(scenario())


async def consume(pull: Pulling, held: set[int], seen: list[tuple[int, int]], seed: int) -> None:
    """Receive, hand some back and acknowledge the others, until everything was seen."""
    dice = random.Random(seed)
    while len(seen) < pull.logged:
        received = await pull.receive(dice.choice([1, 20, 300]))
        keys = {message.id for message in received}
        assert not keys & held, "a key is held by one caller at a time"
        held |= keys
        await asyncio.sleep(0.001)
        # Who fails at a message does not go on with those behind it.
        failed = {message.id for message in received if dice.random() < 0.02}
        kept = [message for message in received if message.id not in failed]
        seen += [(message.id, message.version) for message in kept]
        held -= keys
        if kept:
            assert await pull.ack(kept) == []
        if failed:
            assert await pull.nack([m for m in received if m.id in failed], 0.005) == []


def test_eight_callers_get_every_message_and_each_key_in_order(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            dice = random.Random(8)
            await pull.log([dice.randrange(200) for _ in range(5000)])
            held: set[int] = set()
            seen: list[tuple[int, int]] = []
            async with asyncio.timeout(90), asyncio.TaskGroup() as group:
                for seed in range(PARTITIONS):
                    group.create_task(consume(pull, held, seen, seed))
            assert len(seen) == len(set(seen)) == 5000, "each is acknowledged once"
            by_key: dict[int, list[int]] = defaultdict(list)
            for key, version in seen:
                by_key[key].append(version)
            assert all(versions == sorted(versions) for versions in by_key.values())
            assert await pull.parked() == []

    asyncio.run(scenario())


def test_the_log_is_read_on_by_its_index_and_in_its_order(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(range(5000))
            async with pull.puller._pool.connection() as connection:
                given = {"consumer_id": 1, "database_id": 1, "limit": 10, "most_bytes": 1000}
                for statement in (*receive._READ_PARTITIONS, *receive._READ_WHOLE):
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
                small, large = receive._READ_PARTITIONS
                cursor = await connection.execute(small, given, binary=True)
                read = [row for row in await cursor.fetchall() if row[0] is not None]
                assert [(row[10], row[receive._IS_CUT]) for row in read] == [(None, True)] * 12
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
            reader = LogReader(pull.puller._pool, 1, len(logged))
            entries = await reader.read_stored(ALL_PARTITIONS, 0, len(logged), 100)
            async with pull.puller._pool.connection() as connection:
                pulled = await pull.puller._consumers.get(connection, NAME)
            message = Renderer(pulled.consumer).message
            wanted = [message(entry) for entry in entries if entry.position not in (2, 8)]
            received = (await pull.puller.receive(NAME, 100)).messages
            sent = [b"{" + one.partition(b",")[2] for one in received]
            assert sorted(sent) == sorted(wanted)

    asyncio.run(scenario())


def test_large_messages_of_all_partitions_keep_the_order_of_a_whole(database_url: str) -> None:
    async def scenario() -> None:
        # One partition is over the limit by what nobody wants, before others have a message.
        definition = changes("items", group_by=["owner"], filters=[("v", ">=", 9)])
        async with pulling(database_url, definition) as pull:
            rows = [*same_partition(12), *range(100, 116)]
            await pull.log(rows, owner="a", body="x" * 1024 * 1024)
            await pull.log([200], owner="a", body="small")
            seen: list[int] = []
            while received := await pull.receive(1000):
                seen += ids(received)
                assert await pull.ack(received) == []
            assert seen == [*rows[9:], 200]

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
