"""A consumer that is pulled from now on, or pushed to from now on, loses nothing on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse, Response

from tests.integration.consumers.pull.pulling import messages
from tests.integration.parked import TABLE, carrying, fetch, names, until_states
from tests.integration.pipeline import declare, execute, pipeline
from tests.receiver import Received, Receiver
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.message import HeadState, ParkedMessage
from triggerkit.consumers.parked.origin import Origin
from triggerkit.consumers.parked.store import park
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.service import Puller
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool


async def set_endpoint(settings: Settings, endpoint_id: int | None) -> None:
    """Have the consumer `test` pushed to an endpoint, or pulled."""
    async with await connect(settings.state_dsn, "test") as state:
        consumers = Consumers(state, "test")
        stored = await consumers.find("test")
        declared = Declared("test", stored.definition, managed_by="api")
        await consumers.change(stored, declared, endpoint_id)


def test_what_was_set_aside_beside_a_batch_under_way_is_received_when_it_is_pulled_instead(
    settings: Settings,
) -> None:
    async def answer(received: Received) -> Response:
        if "bad" in names([received]):
            return JSONResponse({}, 422)
        return JSONResponse({}, 503 if "refused" in names([received]) else 200)

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", group_by=["team"], batch_size=10), TABLE, answer=answer
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad', 'a')")
            await until_states(settings, "failing")
            await execute(
                settings, "INSERT INTO items VALUES (2, 'behind', 'a'), (3, 'refused', 'b')"
            )
            await receiver.until(lambda: bool(carrying(receiver, "refused")))
            await set_endpoint(settings, None)
        async with pool(in_order(settings.state_dsn), "test", size=2) as connections:
            puller = Puller(connections)
            found: list[str] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    while len(found) < 3:
                        received = messages(await puller.receive("test", 10))
                        found += [m.json["record"]["name"] for m in received]
                        await puller.ack("test", [m.ack_id for m in received])
                        await asyncio.sleep(0.05)
        assert sorted(found) == ["bad", "behind", "refused"]

    asyncio.run(scenario())


def test_a_message_that_is_parked_as_its_consumer_gets_other_groups_is_in_one_of_them(
    settings: Settings,
) -> None:
    """It waited behind one whose group is another from now on, and would have forever."""

    def message(position: int, state: HeadState | None) -> ParkedMessage:
        body = b'{"record":{"id":%d,"team":"a","name":"x"}}' % position
        origin = Origin(f"1.0.7.1.1.{position}", "public", "items", '["1"]')
        return ParkedMessage(-1, position, '["a"]', body, "refused", state, origin=origin)

    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            await connect(settings.state_dsn, "lane") as lane,
            await connect(settings.state_dsn, "test") as state,
        ):
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", group_by=["team"]))
            consumers = Consumers(state, "test")
            stored = await consumers.find("test")
            after = stored.definition.model_copy(update={"group_by": ("name",)})
            await park(lane, stored.id, [message(1, "failing")])
            async with lane.transaction():
                await lane.execute("UPDATE triggerkit.cursors SET position = 2")
                await park(lane, stored.id, [message(2, None)])
                changing = asyncio.create_task(
                    consumers.change(stored, Declared("test", after, managed_by="api"), 1)
                )
                async with await connect(settings.state_dsn, "watch") as watch:
                    blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    while not changing.done():
                        if (await watch.execute(blocked)).rowcount:
                            break
                        await asyncio.sleep(0.01)
            await changing
            keys = await fetch(settings, "SELECT key, state FROM triggerkit.parked ORDER BY 2")
            assert keys == [('["x"]', "failing"), ('["x"]', "waiting")]

    asyncio.run(scenario())
