"""Parked messages are tried again: with one id and body, as often as the consumer says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.integration.parked import (
    TABLE,
    carrying,
    failing_item,
    fetch,
    names,
    parked,
    refuse,
    until,
    until_states,
)
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Receiver, accept
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

pytestmark = pytest.mark.usefixtures("short_waits")


def test_a_refused_message_is_tried_until_it_is_taken_and_its_key_follows_in_order(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=100), TABLE, answer=refuse("v1")
        ) as receiver:
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
        definition = changes("items", batch_size=10, max_attempts=3, on_exhausted=policy)  # type: ignore[arg-type]
        async with pipeline(settings, definition, TABLE, answer=refuse("bad")) as receiver:
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
        definition = changes("items", batch_size=10, max_attempts=1, on_exhausted=policy)  # type: ignore[arg-type]
        async with pipeline(settings, definition, TABLE, answer=failing_item("bad")) as receiver:
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
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 60)

    async def scenario() -> None:
        async with pipeline(
            settings,
            changes("items", batch_size=10),
            TABLE,
            answer=failing_item("bad", retry_after_s=0),
        ) as receiver:
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


def test_a_transform_that_is_mended_is_used_for_what_was_parked_before(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = tmp_path / "mended"
    monkeypatch.setenv("TEST_MENDED", str(mended))

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
                mended.touch()
                await receiver.until(lambda: len(receiver.requests) == 2)
            assert [r.body for r in receiver.requests] == [b'{"sent":"v1"}', b'{"sent":"v2"}']

    asyncio.run(scenario())


def transform(change: object) -> dict[str, object]:
    if not Path(os.environ["TEST_MENDED"]).exists():
        raise RuntimeError("not mended yet")
    return {"sent": change.record["name"]}  # type: ignore[attr-defined]
