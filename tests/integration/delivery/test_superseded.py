"""What is parked when its table is truncated is not delivered any more."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import until_states
from tests.integration.pipeline import execute, pipeline
from tests.integration.truncated import ITEMS, OTHERS, until_all_is_delivered, values
from tests.receiver import Received, accept
from triggerkit.consumers.definition import changes
from triggerkit.consumers.health import consumer_health
from triggerkit.consumers.parked.manage import list_parked, retry_parked
from triggerkit.errors import NotRetryable
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

pytestmark = pytest.mark.usefixtures("short_waits")


async def refuse_old(received: Received) -> Response:
    return JSONResponse({}, status_code=422 if "old" in values([received]) else 200)


@pytest.mark.parametrize(
    ("options", "of_items", "of_others"),
    [
        ({}, ["failing", "failing", "waiting"], "failing"),
        ({"max_attempts": 1}, ["blocked", "blocked", "waiting"], "blocked"),
        ({"max_attempts": 1, "on_exhausted": "skip"}, ["dead", "dead"], "dead"),
        ({"group_by": ["id"]}, ["failing", "failing", "waiting"], "waiting"),
    ],
)
def test_it_is_superseded_shown_so_and_never_sent_again(
    settings: Settings, options: dict[str, object], of_items: list[str], of_others: str
) -> None:
    """Also what was given up, and could be retried by hand; what is of another table is not, though
    it may be of the same group."""

    async def scenario() -> None:
        definition = changes("items", "others", **options)  # type: ignore[arg-type]
        async with pipeline(settings, definition, ITEMS, OTHERS, answer=refuse_old) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'old'), (2, 'old'), (3, 'good')",
                "UPDATE items SET v = 'behind' WHERE id = 1",
                "INSERT INTO others VALUES (1, 'old')",
            )
            await until_states(settings, *of_items, of_others)
            await execute(settings, "TRUNCATE items", "INSERT INTO items VALUES (2, 'new')")
            await until_all_is_delivered(settings)
            states = ["superseded"] * len(of_items)
            await until_states(settings, *states, of_others.replace("waiting", "failing"))
            actions = [m["action"] for m in receiver.messages]
            assert actions[actions.index("truncate") :].count("insert") >= 2
            if "waiting" in of_items:
                assert "behind" not in values(receiver.requests)
            seen = len(receiver.requests)
            receiver.answer = accept
            async with await connect(settings.state_dsn, "test") as state:
                page = await list_parked(state, state="superseded")
                assert {m.key for m in page.messages} <= {
                    'public.items:["1"]', 'public.items:["2"]', '["1"]', '["2"]', "[1]", "[2]"
                }  # fmt: skip
                assert all("truncated after it: " in m.reason for m in page.messages)
                position = page.messages[0].position
                with pytest.raises(NotRetryable, match="truncated after it"):
                    await retry_parked(state, "test", "test", position=position)
                assert await retry_parked(state, "test", "test") <= 1
                await until_states(settings, *states)
                [health] = await consumer_health(state)
                assert (health.superseded, health.parked) == (len(of_items), len(of_items))
                assert [problem.name for problem in health.problems] == ["superseded"]
            resent = [m for r in receiver.requests[seen:] for m in r.messages]
            assert {m["metadata"]["table_name"] for m in resent if m["record"]["v"] == "old"} == {
                "others"
            }

    asyncio.run(scenario())


def test_a_retry_under_way_is_over_before_the_truncate_is_sent(settings: Settings) -> None:
    hang, is_retried = asyncio.Event(), asyncio.Event()
    answered: list[str] = []

    async def hang_at_a_retry(received: Received) -> Response:
        [value] = values([received])
        if value == "old" and answered:
            is_retried.set()
            await hang.wait()
        answered.append(value)
        return JSONResponse({}, status_code=422 if value == "old" else 200)

    async def scenario() -> None:
        async with pipeline(settings, changes("items"), ITEMS, answer=hang_at_a_retry) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'old')")
            await is_retried.wait()
            await execute(settings, "TRUNCATE items", "INSERT INTO items VALUES (2, 'new')")
            await until_states(settings, "superseded")
            assert values(receiver.requests) == ["old", "old"]
            hang.set()
            await receiver.until(lambda: "new" in values(receiver.requests))
        assert answered == ["old", "old", "", "new"]

    asyncio.run(scenario())
