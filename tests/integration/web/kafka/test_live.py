"""Events from a real stream, read over REST: a commit wakes who waits, deletes have their rows."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tests.conformance.events.world import PASSWORD, USER, EventsWorld
from tests.integration.pipeline import execute, run_until_canceled
from tests.integration.serving import serving
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.events.declaration import read_events
from triggerkit.events.users import add_user
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.application import Application

TOPIC = "triggerkit.app.posts"


async def _declare(settings: Settings) -> None:
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        events = read_events({"tables": ["posts"], "database": "app"})
        await apply(source, state, Declarations(events=events), "http://127.0.0.1:1")
        await add_user(state, USER, PASSWORD, "test")


def test_a_commit_wakes_who_waits_and_each_change_is_its_event(settings: Settings) -> None:
    async def scenario() -> None:
        await execute(settings, "CREATE TABLE posts (id int PRIMARY KEY, title text)")
        await _declare(settings)
        with serving(Application(settings, [], None)) as site:
            world = EventsWorld(settings, site)

            def consume(timeout: int) -> list[dict[str, Any]]:
                found = world.consume(topic=TOPIC, timeout=timeout)
                return [orjson.loads(message["value"]) for message in found]

            async with run_until_canceled(settings):
                waiting = asyncio.create_task(asyncio.to_thread(consume, 60_000))
                await asyncio.to_thread(world.until_consuming)
                await execute(settings, "INSERT INTO posts VALUES (1, 'one')")
                async with asyncio.timeout(10):
                    (inserted,) = await waiting
                assert (inserted["event"], inserted["data"]["title"]) == ("inserted", "one")
                await execute(
                    settings,
                    "UPDATE posts SET title = 'two'",
                    "DELETE FROM posts",
                    "TRUNCATE posts",
                )
                found: list[dict[str, Any]] = []
                async with asyncio.timeout(20):
                    while len(found) < 3:
                        found += await asyncio.to_thread(consume, 5000)
        kinds = {event["event"]: event for event in found}
        assert kinds["updated"]["data"] == {"id": 1, "title": "two"}
        # The WAL has its key alone: the row is the log's last version.
        assert kinds["deleted"]["data"] == {"id": 1, "title": "two"}
        assert kinds["deleted"]["id"] == "1"
        assert "id" not in kinds["truncated"]

    asyncio.run(scenario())
