"""Messages of one key stay in order while parked ones are tried beside the lanes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import TABLE, carrying, command, fetch, names, parked, until_states
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.cursors.cursor import AttemptOutcome
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import retry_parked
from triggerkit.consumers.parked.message import ParkedMessage, Tried
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.lane import Lane
from triggerkit.delivery.parked_retries import Retries
from triggerkit.delivery.push import Answer, Pusher
from triggerkit.log.reader import LogReader
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

pytestmark = pytest.mark.usefixtures("short_waits")


def test_no_message_of_a_key_is_sent_while_an_earlier_one_is_under_way_or_parked(
    settings: Settings,
) -> None:
    """Keys are let go and parked again all the time, while their rows change."""
    rejected: set[int] = set()
    under_way: set[str] = set()
    overlaps: list[str] = []
    taken: dict[str, list[int]] = {}

    def total() -> int:
        return sum(map(len, taken.values()))

    async def moody(received: Received) -> Response:
        [message] = received.messages
        metadata = message["metadata"]
        key, position = metadata["record_pks"][0], metadata["position"]
        if key in under_way:
            overlaps.append(key)
        under_way.add(key)
        await asyncio.sleep(0.002)
        under_way.discard(key)
        if position % 3 == 0 and position not in rejected:
            rejected.add(position)
            item = {"idempotency_key": metadata["idempotency_key"], "retry_after_s": 0.001}
            return JSONResponse({"failed": [item]})
        taken.setdefault(key, []).append(position)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(moody) as receiver:
            await execute(settings, TABLE)
            # With one message in a batch none is taken behind one that is named as failed.
            await declare(settings, receiver, changes("items", batch_size=1))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items SELECT generate_series(1, 12), 'v0'")
                for version in range(1, 41):
                    await execute(settings, f"UPDATE items SET name = 'v{version}'")
                    # Most keys have just been let go, or are about to be.
                    await receiver.until(lambda n=version: total() >= 12 * n - 4)  # type: ignore[misc]
                await receiver.until(lambda: total() >= 12 * 41 - 1, 60)
                await until_states(settings)
            assert len(rejected) == 12 * 41 // 3
            for positions in taken.values():
                assert len(positions) == 41
                assert all(earlier < later for earlier, later in pairwise(positions))
            assert overlaps == []

    asyncio.run(scenario())


def test_a_key_is_not_let_go_while_its_lane_parks_another_message_of_it(
    settings: Settings,
) -> None:
    """The retry has removed the key's last message; the lane parks its next before it is told."""

    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            pool(settings.state_dsn, "test", size=4) as states,
        ):
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            [(database_id,)] = await fetch(settings, "SELECT id FROM triggerkit.databases")
            store = CursorStore(states, database_id)
            [consumer] = await store.consumers()
            reader = LogReader(states, database_id, 0)
            direct = DirectWay(settings, Project.load(), states)
            delivery = ConsumerDelivery(
                consumer, reader, store, Pusher(()), lambda _: Credentials(), direct
            )
            lane = Lane(delivery, (await store.load(consumer))[0])
            retries = Retries(delivery, [lane])
            taken = Answer("delivered", 200)
            await lane._park(
                noted(1), [ParkedMessage(0, 1, "K", b"{}", "refused", "failing")], taken
            )
            [head] = await store.parked.due(consumer.id, 5, ())
            removed, go_on = asyncio.Event(), asyncio.Event()
            record_retry = store.parked.record_retry

            async def slow(*given: Any) -> Any:
                has_more = await record_retry(*given)
                removed.set()
                await go_on.wait()
                return has_more

            store.parked.record_retry = slow  # type: ignore[assignment]
            letting_go = asyncio.create_task(retries._record(head, Tried(None, 1)))
            await removed.wait()
            parking = asyncio.create_task(
                lane._park(noted(2), [ParkedMessage(0, 2, "K", b"{}", "waits")], taken)
            )
            # Long enough for the lane to be done, were it not held.
            await asyncio.wait([parking], timeout=0.5)
            go_on.set()
            await asyncio.gather(letting_go, parking)
            assert await store.parked.has(consumer.id, "K")
            assert delivery.parked_keys == {"K"}
            # Nothing is before it: it is tried, not left to wait forever.
            assert (await parked(settings))[0][1] == "failing"

    def noted(last: int) -> AttemptOutcome:
        return AttemptOutcome(last, last, "b", 1, 1, datetime.now(UTC), 200, None, last)

    asyncio.run(scenario())


def test_a_message_waits_while_its_lane_sends_another_of_its_key(settings: Settings) -> None:
    """Such as one that was given up and is tried by hand, when its key went on without it."""
    hang = asyncio.Event()

    async def hang_later(received: Received) -> Response:
        if "later" in names([received]) and not hang.is_set():
            await hang.wait()
            return JSONResponse({})
        return JSONResponse({}, 422 if not hang.is_set() else 200)

    async def scenario() -> None:
        async with Receiver.start(hang_later) as receiver:
            await execute(settings, TABLE)
            definition = changes("items", max_attempts=1, on_exhausted="skip")
            await declare(settings, receiver, definition)
            await declare(settings, receiver, changes("items", actions=["delete"]), "other")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'given up')")
                await until_states(settings, "dead")
                await execute(settings, "UPDATE items SET name = 'later'")
                await receiver.until(lambda: bool(carrying(receiver, "later")))
                await command(settings, lambda c: retry_parked(c, "test", "me"))
                await execute(settings, "UPDATE items SET name = 'last'")
                # What would be sent now is not: the next push is that of another consumer.
                receiver.answer = accept
                await execute(settings, "DELETE FROM items")
                await receiver.until(lambda: receiver.messages[-1]["action"] == "delete")
                assert len(carrying(receiver, "given up")) == 1
                hang.set()
                await receiver.until(lambda: len(carrying(receiver, "last")) == 1)
                await until_states(settings)
            mine = [
                r
                for r in receiver.requests
                if r.messages[0]["metadata"]["consumer"]["name"] == "test"
            ]
            order = [r.messages[0]["metadata"]["position"] for r in mine]
            assert order == [1, 2, 1, 3, 4]

    asyncio.run(scenario())


def test_a_message_that_waits_for_its_lane_does_not_hold_up_those_due_after_it(
    settings: Settings,
) -> None:
    hang = asyncio.Event()
    refused = {"first", "second"}

    async def answer(received: Received) -> Response:
        if "hangs" in names([received]):
            await hang.wait()
        return JSONResponse({}, 422 if refused & {*names([received])} else 200)

    async def scenario() -> None:
        definition = changes("items", group_by=["team"], concurrency=3, batch_size=1)
        skipping = definition.model_copy(update={"max_attempts": 1, "on_exhausted": "skip"})
        async with pipeline(settings, skipping, TABLE, answer=answer) as receiver:
            await execute(
                settings, "INSERT INTO items VALUES (1, 'first', 'a'), (2, 'second', 'b')"
            )
            await until_states(settings, "dead", "dead")
            await execute(settings, "INSERT INTO items VALUES (3, 'hangs', 'a')")
            await receiver.until(lambda: bool(carrying(receiver, "hangs")))
            refused.clear()
            for position in (1, 2):
                async with await connect(settings.state_dsn, "test") as state:
                    await retry_parked(state, "test", "me", position=position)
            await receiver.until(lambda: len(carrying(receiver, "second")) == 2)
            assert len(carrying(receiver, "first")) == 1
            hang.set()
            await receiver.until(lambda: len(carrying(receiver, "first")) == 2)

    asyncio.run(scenario())
