"""From a commit to a push: capture, log, delivery, and the restart of all of them."""

from __future__ import annotations

import asyncio

import psycopg
from starlette.responses import JSONResponse, Response

from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes, rows
from triggerkit.settings import Settings

TABLE = """
CREATE TABLE items (id bigint PRIMARY KEY, name text, note text);
ALTER TABLE items REPLICA IDENTITY FULL
"""


def test_every_kind_of_change_arrives_in_order(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=10), TABLE) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'one', NULL)",
                "UPDATE items SET name = 'uno' WHERE id = 1",
                "DELETE FROM items WHERE id = 1",
            )
            await receiver.until(lambda: len(receiver.messages) == 3)
        insert, update, delete = receiver.messages
        assert insert["action"] == "insert"
        assert insert["record"] == {"id": 1, "name": "one", "note": None}
        assert insert["changes"] is None
        assert update["action"] == "update"
        assert update["record"]["name"] == "uno"
        assert update["changes"] == {"name": "one"}
        assert delete["action"] == "delete"
        assert delete["record"] == {"id": 1, "name": "uno", "note": None}
        positions = [m["metadata"]["position"] for m in receiver.messages]
        assert positions == [1, 2, 3]
        assert len({m["metadata"]["idempotency_key"] for m in receiver.messages}) == 3

    asyncio.run(scenario())


def test_a_changed_key_arrives_as_delete_of_the_old_and_insert_of_the_new(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=10), TABLE) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'one', NULL)",
                "UPDATE items SET id = 2",
            )
            await receiver.until(lambda: len(receiver.messages) == 3)
        seen = {(m["action"], m["metadata"]["record_pks"][0]) for m in receiver.messages}
        assert seen == {("insert", "1"), ("delete", "1"), ("insert", "2")}

    asyncio.run(scenario())


def test_an_update_of_other_columns_is_not_delivered(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", when_changed=["name"]), TABLE) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'one', NULL)",
                "UPDATE items SET note = 'unrelated'",
                "UPDATE items SET name = 'uno'",
            )
            await receiver.until(lambda: len(receiver.messages) == 2)
        assert [m["action"] for m in receiver.messages] == ["insert", "update"]
        assert receiver.messages[1]["changes"] == {"name": "one"}

    asyncio.run(scenario())


def test_existing_rows_come_once_and_then_their_changes(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings,
            rows("items", sort_by="name", batch_size=500),
            TABLE,
            "INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 3000) i",
        ) as receiver:
            await receiver.until(lambda: len(receiver.messages) >= 3000)
            await execute(settings, "UPDATE items SET name = 'changed' WHERE id = 7")
            await receiver.until(lambda: len(receiver.messages) == 3001)
        reads = [m for m in receiver.messages if m["action"] == "read"]
        assert sorted(int(m["metadata"]["record_pks"][0]) for m in reads) == [*range(1, 3001)]
        assert receiver.messages[-1]["record"]["name"] == "changed"

    asyncio.run(scenario())


def test_rows_without_a_sort_value_are_read_too(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings,
            rows("items", sort_by="name", batch_size=500),
            TABLE,
            "INSERT INTO items SELECT i, CASE WHEN i % 2 = 0 THEN 'n' END "
            "FROM generate_series(1, 700) i",
        ) as receiver:
            await receiver.until(lambda: len(receiver.messages) == 700)

    asyncio.run(scenario())


def test_a_restart_goes_on_where_it_was_with_nothing_twice_and_nothing_lost(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=100))
            for start in range(0, 500, 100):
                async with streaming(settings, receiver):
                    await execute(
                        settings,
                        f"INSERT INTO items SELECT i FROM generate_series({start}, {start + 99}) i",
                    )
                    await receiver.until(lambda: bool(receiver.messages))
            async with streaming(settings, receiver):
                await receiver.until(
                    lambda: len({k for r in receiver.requests for k in r.keys}) == 500
                )
            with psycopg.connect(settings.source_dsn) as connection:
                logged = connection.execute(
                    "SELECT count(*), count(DISTINCT key), max(position) FROM triggerkit.events"
                ).fetchone()
            assert logged == (500, 500, 500)

    asyncio.run(scenario())


def test_a_batch_of_unknown_outcome_is_sent_again_as_it_was(settings: Settings) -> None:
    hang = asyncio.Event()

    async def never_answer(_received: Received) -> Response:
        await hang.wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(never_answer) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=100))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one')")
                await receiver.until(lambda: len(receiver.requests) == 1)
            hang.set()
            await execute(settings, "UPDATE items SET name = 'uno'")
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.requests) == 3)
            first, again, update = receiver.requests
            assert again.batch_id == first.batch_id
            assert again.body == first.body
            assert again.headers["triggerkit-attempt"] == "2"
            assert update.batch_id != first.batch_id

    asyncio.run(scenario())


def test_an_endpoint_that_fails_gets_the_same_batch_again_and_rows_stay_in_order(
    settings: Settings,
) -> None:
    failures = 2

    async def fail_at_first(_received: Received) -> Response:
        nonlocal failures
        failures -= 1
        if failures < 0:
            return JSONResponse({})
        return JSONResponse({}, 503, headers={"retry-after": "0.05"})

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=fail_at_first
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: bool(receiver.requests))
            await execute(settings, "UPDATE items SET name = 'uno'")
            await receiver.until(lambda: len(receiver.requests) == 4)
        first, second, third, update = receiver.requests
        assert first.body == second.body == third.body
        assert first.batch_id == second.batch_id == third.batch_id
        assert update.messages[0]["action"] == "update"

    asyncio.run(scenario())


def test_a_refused_message_is_found_by_halving_and_parked_alone(settings: Settings) -> None:
    async def refuse_poison(received: Received) -> Response:
        poisoned = any(m["record"]["name"] == "poison" for m in received.messages)
        return JSONResponse({}, 422 if poisoned else 200)

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=refuse_poison
        ) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT i, CASE i WHEN 42 THEN 'poison' ELSE 'good' END "
                "FROM generate_series(1, 200) i",
                "UPDATE items SET name = 'behind' WHERE id = 42",
                "UPDATE items SET name = 'last' WHERE id = 1",
            )
            await receiver.until(
                lambda: (
                    any(m["record"]["name"] == "last" for m in receiver.messages)
                    and len(accepted_keys(receiver)) == 199
                )
            )
            parked = await until_parked(settings, 2)
        assert parked == [(1, "answered 422"), (2, "waits behind a parked message of its row")]

    def accepted_keys(receiver: Receiver) -> set[str]:
        good = [
            r for r in receiver.requests if all(m["record"]["name"] != "poison" for m in r.messages)
        ]
        return {key for r in good for key in r.keys}

    async def until_parked(settings: Settings, count: int) -> list[tuple[int, str]]:
        query = (
            "SELECT row_number() OVER (ORDER BY position), reason FROM triggerkit.parked "
            "WHERE key = 'public.items:[\"42\"]' ORDER BY position"
        )
        async with asyncio.timeout(10):
            while True:
                async with await psycopg.AsyncConnection.connect(settings.state_dsn) as state:
                    cursor = await state.execute(query)
                    found = await cursor.fetchall()
                if len(found) == count:
                    return found
                await asyncio.sleep(0.02)

    asyncio.run(scenario())


def test_our_own_tables_do_not_feed_us_though_all_tables_are_published(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings,
            changes("items", batch_size=10),
            TABLE,
            "CREATE PUBLICATION triggerkit FOR ALL TABLES",
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: len(receiver.messages) == 1)
            await execute(settings, "INSERT INTO items VALUES (2, 'two')")
            await receiver.until(lambda: len(receiver.messages) == 2)
        with psycopg.connect(settings.source_dsn) as connection:
            tables = connection.execute(
                "SELECT DISTINCT schema_name, table_name FROM triggerkit.events"
            ).fetchall()
        assert tables == [("public", "items")]

    asyncio.run(scenario())


def test_a_transaction_larger_than_any_buffer_is_logged_whole(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=1000), TABLE) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i",
            )
            await receiver.until(lambda: len(receiver.messages) == 50_000, timeout_s=60)
        indexes = sorted(m["metadata"]["commit_idx"] for m in receiver.messages)
        assert indexes == [*range(50_000)]
        assert len({m["metadata"]["commit_lsn"] for m in receiver.messages}) == 1

    asyncio.run(scenario())
