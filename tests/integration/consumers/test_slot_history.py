"""What was captured by an earlier slot stays what it was when another one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.consumers.pull.pulling import messages
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.definition import changes
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.service import Puller
from triggerkit.errors import Fenced
from triggerkit.log.writer import LogWriter
from triggerkit.replication.slot.replication_slot import drop_slot, slot_name_for
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"


async def replace_slot(settings: Settings) -> None:
    """Lose the slot, and have another one made by `apply`."""
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        await drop_slot(source, slot_name_for(source.info.dbname))
        await apply(source, state, [Declared("other", changes("items"), None)], "")


async def unavailable(_received: Received) -> Response:
    return JSONResponse({}, status_code=503)


async def refuses_row_1(received: Received) -> Response:
    if "1" in received.keys:
        return JSONResponse({}, status_code=422)
    return await unavailable(received)


def epoch(message: dict[str, Any]) -> int:
    return int(message["metadata"]["database"]["epoch"])


@pytest.mark.parametrize("batch_size", [1, 10])
def test_what_is_sent_again_after_the_slot_was_replaced_is_the_same_by_id_body_and_key(
    settings: Settings, batch_size: int
) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuses_row_1) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=batch_size))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'parked'), (2, 'waits')")
                await receiver.until(lambda: {"1", "2"} <= {r.keys[0] for r in receiver.requests})
                await until_parked(settings)
            before = {r.keys[0]: r for r in receiver.requests}
            await replace_slot(settings)
            seen = len(receiver.requests)
            receiver.answer = accept
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (3, 'new')")
                await receiver.until(
                    lambda: {"1", "2", "3"} <= {r.keys[0] for r in receiver.requests[seen:]}
                )
            after = {r.keys[0]: r for r in receiver.requests[seen:]}
            assert after["2"].batch_id == before["2"].batch_id
            for key in ("1", "2"):
                assert after[key].body == before[key].body
            assert epoch(after["3"].messages[0]) > epoch(after["2"].messages[0])

    asyncio.run(scenario())


async def until_parked(settings: Settings) -> None:
    async with await connect(settings.state_dsn, "test") as state, asyncio.timeout(20):
        while True:
            cursor = await state.execute("SELECT count(*) FROM triggerkit.parked")
            if await cursor.fetchone() == (1,):
                return
            await asyncio.sleep(0.02)


def test_what_is_replayed_or_handed_out_again_names_the_slot_that_captured_it(
    settings: Settings,
) -> None:
    """Also the second time that a slot takes the place of another one."""

    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            pool(in_order(settings.state_dsn), "test", size=2) as states,
        ):
            puller = Puller(states)
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            async with (
                await connect(settings.source_dsn, "test") as source,
                await connect(settings.state_dsn, "test") as state,
            ):
                declared = [
                    Declared("test", changes("items"), "/push"),
                    Declared("pulled", changes("items", timeout_s=1), None),
                ]
                await apply(source, state, declared, receiver.url)
            for number in (1, 2):
                async with streaming(settings, receiver):
                    await execute(settings, f"INSERT INTO items VALUES ({number}, 'x')")
                    await receiver.until(lambda: len(by_key(receiver.messages)) == number)  # noqa: B023
                await replace_slot(settings)
            captured = by_key(receiver.messages)
            assert epoch(captured["1"]) < epoch(captured["2"])

            pulled = messages(await puller.receive("pulled", 10))
            assert slots(by_key([m.json for m in pulled])) == slots(captured)
            seen = len(receiver.requests)
            async with streaming(settings, receiver):
                async with await connect(settings.state_dsn, "test") as state:
                    consumers = Consumers(state, "test")
                    await consumers.replay(await consumers.find("test"), "beginning")
                await receiver.until(lambda: len(by_key(replayed(receiver.requests[seen:]))) == 2)
            assert slots(by_key(replayed(receiver.requests[seen:]))) == slots(captured)

    asyncio.run(scenario())


def by_key(found: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["record_pks"][0]: m for m in found}


def replayed(requests: Iterable[Received]) -> list[dict[str, Any]]:
    made = [m for r in requests for m in r.messages]
    return [m for m in made if m["metadata"]["idempotency_key"].split(".")[1] == "1"]


def slots(captured: dict[str, dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """Of each row the key, without its consumer and replay, and the epoch."""
    return {
        row: (message["metadata"]["idempotency_key"].split(".", 2)[2], epoch(message))
        for row, message in captured.items()
    }


def test_a_stream_of_the_slot_before_adds_nothing_to_the_log_any_more(settings: Settings) -> None:
    """What it adds would count as captured by the new slot, which then passes changes over."""

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            async with LogWriter.open(settings.state_dsn, 1) as writer:
                await writer.commit(1)
                await replace_slot(settings)
                with pytest.raises(Fenced):
                    await writer.commit(2)

    asyncio.run(scenario())
