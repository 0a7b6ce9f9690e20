"""What a consumer's options do to what is delivered, and when."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import orjson
import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import TABLE, carrying, command, fetch, names, until, until_states
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver
from triggerkit import Change
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.parked.manage import discard_parked, retry_parked
from triggerkit.errors import NotRetryable
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


def is_not_bad(change: Change[dict[str, str]]) -> bool:
    if change.record["name"] == "raises":
        raise ValueError("cannot say")
    return change.record["name"] != "bad"


def short(change: Change[dict[str, str]]) -> dict[str, str]:
    return {"name": change.record["name"].upper()}


def test_only_what_passes_the_filters_is_delivered(settings: Settings) -> None:
    async def scenario() -> None:
        definition = changes("items", filters=[("team", "==", "red"), ("id", ">", 1)])
        async with pipeline(settings, definition, TABLE) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'one', 'red'), (2, 'two', 'blue')",
                "INSERT INTO items VALUES (3, 'three', NULL), (4, 'four', 'red')",
            )
            await receiver.until(lambda: bool(receiver.requests))
        assert names(receiver.requests) == ["four"]

    asyncio.run(scenario())


def test_a_filter_function_chooses_and_one_that_raises_parks_the_message_and_holds_its_row(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", filter=is_not_bad, batch_size=10), TABLE
        ) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'bad'), (2, 'good'), (3, 'raises')",
                "UPDATE items SET name = 'behind' WHERE id = 3",
                "INSERT INTO items VALUES (4, 'last')",
            )
            await until_states(settings, "failing", "waiting")
            await receiver.until(lambda: bool(carrying(receiver, "last")))
            reasons = await fetch(
                settings, "SELECT reason FROM triggerkit.parked ORDER BY position"
            )
        assert sorted(names(receiver.requests)) == ["good", "last"]
        assert reasons == [
            ("the filter raised ValueError",),
            ("waits behind a parked message of its row",),
        ]

    asyncio.run(scenario())


def test_what_a_transform_returns_is_sent_in_place_of_the_message(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", transform=short), TABLE) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: len(receiver.requests) == 1)
        assert receiver.requests[0].body == b'{"name":"ONE"}'

    asyncio.run(scenario())


def test_a_consumer_whose_function_cannot_be_loaded_says_so_and_the_others_go_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.project._own", {"late_module"})
    monkeypatch.syspath_prepend(tmp_path)
    error = "SELECT last_error FROM triggerkit.consumers WHERE name = 'broken'"

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", actions=["insert"]), "works")
            async with streaming(settings, receiver):
                await declare_both(receiver)
                [(told,)] = await until(settings, error, lambda rows: rows[0][0] is not None)
                assert told.startswith("cannot run: late_module:wanted")
                await execute(settings, "INSERT INTO items VALUES (1, 'one')")
                await receiver.until(lambda: len(receiver.requests) == 1)
                (tmp_path / "late_module.py").write_text("def wanted(change): return True\n")
                await declare_both(receiver)
                await receiver.until(lambda: len(receiver.requests) == 2)
                await until(settings, error, lambda rows: rows == [(None,)])
            assert consumers(receiver) == ["works", "broken"]

    async def declare_both(receiver: Receiver) -> None:
        broken = changes("items", filter="late_module:wanted", name="broken")
        await declare(settings, receiver, broken, "broken")

    def consumers(receiver: Receiver) -> list[str]:
        return [m["metadata"]["consumer"]["name"] for m in receiver.messages]

    asyncio.run(scenario())


def test_messages_of_a_group_are_in_order_whatever_their_rows(settings: Settings) -> None:
    async def refuse_red(received: Received) -> Response:
        is_bad = any(m["record"]["name"] == "v0" for m in received.messages)
        return JSONResponse({}, 422 if is_bad else 200)

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", group_by=["team"], batch_size=7), TABLE, answer=refuse_red
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'v0', 'red')")
            await until_states(settings, "failing")
            for number in range(2, 40):
                team = "red" if number % 2 else "blue"
                await execute(
                    settings, f"INSERT INTO items VALUES ({number}, 'v{number}', '{team}')"
                )
            await receiver.until(lambda: bool(carrying(receiver, "v38")))
            await until(
                settings,
                "SELECT count(*), min(key) FROM triggerkit.parked",
                lambda rows: rows == [(20, '["red"]')],
            )
        taken = [n for n in names(receiver.requests) if n != "v0"]
        assert taken == [f"v{n}" for n in range(2, 40, 2)]
        assert receiver.messages[-1]["metadata"]["group"] in ('["blue"]', '["red"]')
        cursors = await fetch(settings, "SELECT partition FROM triggerkit.cursors")
        assert cursors == [(-1,)]

    asyncio.run(scenario())


def test_a_consumer_ordered_as_a_whole_reads_what_the_log_has_stored(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", actions=["delete"]), "early")
            definition = changes("items", group_by=["team"], batch_size=100)
            await declare(settings, receiver, definition)
            await set_state("paused")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items SELECT generate_series(1, 2000), 'x'")
                await until(
                    settings,
                    "SELECT next_position FROM triggerkit.databases",
                    lambda rows: rows == [(2001,)],
                )
            await set_state("active")
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) == 2000)
            positions = [m["metadata"]["position"] for m in receiver.messages]
            assert positions == [*range(1, 2001)]

    async def set_state(wanted: str) -> None:
        await command(
            settings,
            lambda state: state.execute(
                "UPDATE triggerkit.consumers SET state = %s WHERE name = 'test'", [wanted]
            ),
        )

    asyncio.run(scenario())


def test_a_group_that_is_added_or_left_out_takes_the_places_and_parked_messages_along(
    settings: Settings,
) -> None:
    async def refuse_v1(received: Received) -> Response:
        return JSONResponse({}, 422 if "v1" in names([received]) else 200)

    async def scenario() -> None:
        async with pipeline(settings, changes("items"), TABLE, answer=refuse_v1) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'v1', 'red')")
            await until_states(settings, "failing")
            await change(receiver, changes("items", group_by=["team"]))
            await execute(settings, "INSERT INTO items VALUES (2, 'behind', 'red')")
            await execute(settings, "INSERT INTO items VALUES (3, 'other', 'blue')")
            await receiver.until(lambda: bool(carrying(receiver, "other")))
            await until_states(settings, "failing", "waiting")
            await change(receiver, changes("items"))
            # Now they are rows of their own: the second one goes.
            await receiver.until(lambda: bool(carrying(receiver, "behind")))
            await until_states(settings, "failing")
            await execute(settings, "INSERT INTO items VALUES (4, 'last', 'red')")
            await receiver.until(lambda: bool(carrying(receiver, "last")))

    async def change(receiver: Receiver, definition: ConsumerDefinition) -> None:
        async with await connect(settings.source_dsn, "test") as source:
            declared = Declared("test", definition, "/push")
            await command(
                settings,
                lambda state: apply(source, state, [declared], receiver.url, may_lose=True),
            )

    asyncio.run(scenario())


def test_a_batch_that_is_not_full_waits_for_more(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            # In one order, so that all of it goes into one batch.
            definition = changes("items", group_by=["team"], batch_size=5, batch_timeout_s=60)
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                for number in range(1, 6):
                    await execute(settings, f"INSERT INTO items VALUES ({number}, 'v{number}')")
                await receiver.until(lambda: len(receiver.requests) == 1)
            assert names(receiver.requests) == ["v1", "v2", "v3", "v4", "v5"]

    asyncio.run(scenario())


def test_a_batch_waits_no_longer_than_its_time_out(settings: Settings) -> None:
    async def scenario() -> None:
        definition = changes("items", batch_size=5, batch_timeout_s=1)
        async with pipeline(settings, definition, TABLE) as receiver:
            begun = time.monotonic()
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'one')",
                "UPDATE items SET name = 'two'",
            )
            await receiver.until(lambda: len(receiver.requests) == 1)
            took = time.monotonic() - begun
        assert names(receiver.requests) == ["one", "two"]
        assert 1 <= took < 10

    asyncio.run(scenario())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_pushes_are_under_way_than_the_concurrency_allows(
    settings: Settings, concurrency: int
) -> None:
    under_way = 0
    most = 0

    async def count(received: Received) -> Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        # Retries of parked messages are counted too.
        bad = [m for m in received.messages if int(m["metadata"]["record_pks"][0]) % 7 == 0]
        failed = [
            {"idempotency_key": m["metadata"]["idempotency_key"], "retry_after_s": 0.001}
            for m in bad
            if "triggerkit-attempt" in received.headers
            and int(received.headers["triggerkit-attempt"]) < 3
        ]
        return JSONResponse({"failed": failed})

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", concurrency=concurrency), TABLE, answer=count
        ) as receiver:
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 100), 'x'")
            await receiver.until(lambda: len(receiver.requests) == 100 + 2 * 14)
            await until_states(settings)
        assert most == concurrency

    asyncio.run(scenario())


def test_an_entry_without_its_record_is_parked_and_never_sent(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            await pause()
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one')")
                logged = "SELECT position FROM triggerkit.events"
                await until(settings, logged, lambda rows: rows == [(1,)])
            await run("UPDATE triggerkit.events SET record = NULL, fault = 'too large'")
            await run("UPDATE triggerkit.consumers SET state = 'active'")
            async with streaming(settings, receiver):
                await until_states(settings, "blocked")
                await execute(settings, "UPDATE items SET name = 'two'")
                await until_states(settings, "blocked", "waiting")
                with pytest.raises(NotRetryable, match="too large"):
                    await command(settings, lambda c: retry_parked(c, "test", "me", position=1))
                await command(settings, lambda c: discard_parked(c, "test", "me", position=1))
                await until_states(settings)
            assert names(receiver.requests) == ["two"]

    async def pause() -> None:
        await run("UPDATE triggerkit.consumers SET state = 'paused'")

    async def run(statement: str) -> None:
        await command(settings, lambda state: state.execute(statement.encode()))

    asyncio.run(scenario())


@pytest.mark.parametrize("always_data", [False, True])
def test_one_message_is_sent_in_data_where_that_is_asked_for(
    settings: Settings, always_data: bool
) -> None:
    async def scenario() -> list[Received]:
        definition = changes("items", always_data=always_data, annotations={"team": "red"})
        async with pipeline(settings, definition, TABLE) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: bool(receiver.requests))
        return receiver.requests

    body = orjson.loads(asyncio.run(scenario())[0].body)
    assert ("data" in body) is always_data
    metadata = (body["data"][0] if always_data else body)["metadata"]
    assert metadata["consumer"]["annotations"] == {"team": "red"}
    assert metadata["database_name"] == metadata["database"]["database"]
    assert metadata["database"]["hostname"] in ("127.0.0.1", "localhost")
