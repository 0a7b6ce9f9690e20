"""Parked messages are tried again: in order per key, counted, and only for their own faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import (
    TABLE,
    carrying,
    command,
    fetch,
    names,
    parked,
    until,
    until_states,
)
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.cursor import AttemptOutcome, CursorStore
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import retry_parked
from triggerkit.consumers.parked.store import ParkedMessage, Tried
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.lane import Lane
from triggerkit.delivery.parked_retries import Retries
from triggerkit.delivery.push import Pusher
from triggerkit.log.reader import LogReader
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off is doubled and jittered as ever, from less."""
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.4)


def refuse(*bad: str, status: int = 422) -> Callable[[Received], Awaitable[Response]]:
    """Refuses requests that carry one of these names."""

    async def answer(received: Received) -> Response:
        is_bad = not set(bad).isdisjoint(names([received]))
        return JSONResponse({}, status if is_bad else 200)

    return answer


def failing_item(*bad: str, **given: object) -> Callable[[Received], Awaitable[Response]]:
    """Names the items that carry one of these names as failed."""

    async def answer(received: Received) -> Response:
        failed = [
            {"idempotency_key": m["metadata"]["idempotency_key"], "error": "no good", **given}
            for m in received.messages
            if m["record"]["name"] in bad
        ]
        return JSONResponse({"failed": failed} if failed else {})

    return answer


def test_a_refused_message_is_tried_until_it_is_taken_and_its_key_follows_in_order(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("v1")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=100))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'v1')")
                await until_states(settings, "failing")
                for version in range(2, 30):
                    await execute(settings, f"UPDATE items SET name = 'v{version}'")
                await execute(settings, "INSERT INTO items VALUES (2, 'other')")
                await receiver.until(lambda: bool(carrying(receiver, "other")))
                await until(
                    settings, "SELECT count(*) FROM triggerkit.parked", lambda rows: rows == [(29,)]
                )
                refused = len(receiver.requests)
                assert set(names(receiver.requests)) == {"v1", "other"}
                receiver.answer = accept
                await receiver.until(lambda: bool(carrying(receiver, "v29")))
                await until_states(settings)
                # The key's live messages go through the lane again.
                await execute(settings, "UPDATE items SET name = 'last' WHERE id = 1")
                await receiver.until(lambda: bool(carrying(receiver, "last")))
            taken = names(receiver.requests[refused:])
            assert taken == [f"v{n}" for n in range(1, 30)] + ["last"]
            assert await parked(settings) == []

    asyncio.run(scenario())


def test_the_attempts_of_a_message_have_one_id_and_body_and_grow_apart(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await receiver.until(lambda: len(receiver.requests) == 3)
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.requests) == 5)
            retries = receiver.requests[1:]
            assert len({(r.batch_id, r.body) for r in retries}) == 1
            assert retries[0].batch_id != receiver.requests[0].batch_id
            numbers = [int(r.headers["triggerkit-attempt"]) for r in retries]
            assert numbers == sorted(set(numbers)), "a restart forgets no attempt"
            assert numbers[0] == 2
            noted = await fetch(
                settings,
                "SELECT attempt, status FROM triggerkit.deliveries ORDER BY id",
            )
            assert noted[:2] == [(1, 422), (2, 422)]

    asyncio.run(scenario())


@pytest.mark.parametrize(("policy", "state"), [("block", "blocked"), ("skip", "dead")])
def test_after_the_last_attempt_the_key_waits_or_goes_on(
    settings: Settings, policy: str, state: str
) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            definition = changes("items", batch_size=10, max_attempts=3, on_exhausted=policy)  # type: ignore[arg-type]
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    "INSERT INTO items VALUES (1, 'bad')",
                    "UPDATE items SET name = 'behind'",
                    "INSERT INTO items VALUES (2, 'other')",
                )
                if policy == "skip":
                    await receiver.until(lambda: bool(carrying(receiver, "behind")))
                    await until_states(settings, "dead")
                else:
                    await until_states(settings, "blocked", "waiting")
                await receiver.until(lambda: bool(carrying(receiver, "other")))
                await execute(settings, "UPDATE items SET name = 'later'")
                if policy == "skip":
                    await receiver.until(lambda: len(carrying(receiver, "later")) == 2)
                else:
                    await until_states(settings, "blocked", "waiting", "waiting")
            bad = [r for r in carrying(receiver, "bad") if len(r.messages) == 1]
            assert len(bad) >= 3
            assert (await parked(settings))[0][1:] == (state, 3, 3)

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["block", "skip"])
def test_a_message_with_one_attempt_is_given_up_at_once(settings: Settings, policy: str) -> None:
    async def scenario() -> None:
        async with Receiver.start(failing_item("bad")) as receiver:
            await execute(settings, TABLE)
            definition = changes("items", batch_size=10, max_attempts=1, on_exhausted=policy)  # type: ignore[arg-type]
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await until_states(settings, "blocked" if policy == "block" else "dead")
                await execute(settings, "UPDATE items SET name = 'later'")
                if policy == "block":
                    await until_states(settings, "blocked", "waiting")
                else:
                    await receiver.until(lambda: bool(carrying(receiver, "later")))
            assert len(carrying(receiver, "bad")) == 1

    asyncio.run(scenario())


def test_a_named_item_waits_as_long_as_the_receiver_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 60)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 60)

    async def scenario() -> None:
        async with Receiver.start(failing_item("bad", retry_after_s=0.05)) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await receiver.until(lambda: len(receiver.requests) == 4)
                receiver.answer = failing_item("bad", retry_after_s=3600)
                await until(
                    settings,
                    "SELECT due_at - now() FROM triggerkit.parked",
                    lambda rows: (
                        bool(rows)
                        and 0 < rows[0][0].total_seconds() <= 60
                        and rows[0][0].total_seconds() > 10
                    ),
                )

    asyncio.run(scenario())


def test_an_outage_uses_up_no_attempts(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10, max_attempts=3))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await until_states(settings, "failing")
                down = len(receiver.requests)
                receiver.answer = refuse("bad", "other", status=503)
                await execute(settings, "INSERT INTO items VALUES (2, 'other')")
                await receiver.until(
                    lambda: len(carrying(receiver, "bad")) > 6 and len(receiver.requests) > down + 8
                )
                [(_, state, attempts, failures)] = await parked(settings)
                assert (state, failures <= 2) == ("failing", True)
                assert attempts > failures + 3
                receiver.answer = accept
                await until_states(settings)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 404, 429])
def test_an_answer_about_the_sender_uses_up_no_attempts(settings: Settings, status: int) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10, max_attempts=3))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await until_states(settings, "failing")
                receiver.answer = refuse("bad", status=status)
                before = len(carrying(receiver, "bad"))
                for number in range(2, 7):
                    await execute(settings, f"INSERT INTO items VALUES ({number}, 'good')")
                    await receiver.until(
                        lambda n=number: len(carrying(receiver, "bad")) >= before + n  # type: ignore[misc]
                    )
                assert (await parked(settings))[0][1] == "failing"

    asyncio.run(scenario())


def test_a_message_at_which_the_endpoint_fails_while_others_go_through_uses_up_its_attempts(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10, max_attempts=4))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await until_states(settings, "failing")
                receiver.answer = refuse("bad", status=500)

                async def others() -> None:
                    for number in range(2, 10_000):
                        await execute(settings, f"INSERT INTO items VALUES ({number}, 'n{number}')")
                        name = f"n{number}"
                        await receiver.until(lambda n=name: bool(carrying(receiver, n)))  # type: ignore[misc]

                busy = asyncio.create_task(others())
                await until_states(settings, "blocked")
                busy.cancel()
                await asyncio.gather(busy, return_exceptions=True)
            assert (await parked(settings))[0][3] == 4

    asyncio.run(scenario())


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


def test_a_transform_that_is_mended_is_used_for_what_was_parked_before(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            name = f"{__name__}:transform"
            await declare(settings, receiver, changes("items", transform=name))
            async with streaming(settings, receiver):
                await execute(
                    settings, "INSERT INTO items VALUES (1, 'v1')", "UPDATE items SET name = 'v2'"
                )
                await until_states(settings, "failing", "waiting")
                [(body,)] = await fetch(
                    settings, "SELECT body FROM triggerkit.parked WHERE state = 'failing'"
                )
                assert '"name":"v1"' in body
                assert receiver.requests == []
                mended.append(True)
                await receiver.until(lambda: len(receiver.requests) == 2)
            assert [r.body for r in receiver.requests] == [b'{"sent":"v1"}', b'{"sent":"v2"}']

    mended.clear()
    asyncio.run(scenario())


mended: list[bool] = []


def transform(change: object) -> dict[str, object]:
    if not mended:
        raise RuntimeError("not mended yet")
    return {"sent": change.record["name"]}  # type: ignore[attr-defined]


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
            delivery = ConsumerDelivery(
                consumer, reader, store, Pusher(()), lambda _: Credentials()
            )
            lane = Lane(delivery, (await store.load(consumer))[0])
            retries = Retries(delivery, [lane])
            await lane._park(noted(1), [ParkedMessage(0, 1, "K", b"{}", "refused", "failing")])
            lane.cursor.position = 1
            [head] = await store.parked.due(consumer.id, 5, ())
            removed, go_on = asyncio.Event(), asyncio.Event()
            record_retry = store.parked.record_retry

            async def slow(*given: Any) -> bool:
                has_more = await record_retry(*given)
                removed.set()
                await go_on.wait()
                return has_more

            store.parked.record_retry = slow  # type: ignore[assignment]
            letting_go = asyncio.create_task(retries._record(head, Tried(None, 1)))
            await removed.wait()
            parking = asyncio.create_task(
                lane._park(noted(2), [ParkedMessage(0, 2, "K", b"{}", "waits")])
            )
            # Long enough for the lane to be done, were it not held.
            await asyncio.wait([parking], timeout=0.5)
            go_on.set()
            await asyncio.gather(letting_go, parking)
            assert await store.parked.has(consumer.id, "K")
            assert delivery.parked_keys == {"K"}
            # Nothing is before it: it is tried, not left to wait for ever.
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
        async with Receiver.start(answer) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, skipping)
            async with streaming(settings, receiver):
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
