"""Commands on parked messages, while the stream runs."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from typer.testing import CliRunner

from tests.integration.parked import (
    TABLE,
    carrying,
    command,
    fetch,
    names,
    refuse,
    until,
    until_states,
)
from tests.integration.pipeline import execute, pipeline
from tests.receiver import accept
from triggerkit.cli.main import application
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import (
    ParkedPage,
    discard_parked,
    list_parked,
    retry_parked,
    show_parked,
)
from triggerkit.errors import NotRetryable, UnknownConsumer, UnknownMessage
from triggerkit.settings import Settings

BLOCKING = changes("items", batch_size=10, max_attempts=1)
SKIPPING = changes("items", batch_size=10, max_attempts=1, on_exhausted="skip")


def test_a_key_flows_again_once_its_blocked_message_is_discarded(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, BLOCKING, TABLE, answer=refuse("bad")) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'bad')",
                "UPDATE items SET name = 'v2'",
                "UPDATE items SET name = 'v3'",
            )
            await until_states(settings, "blocked", "waiting", "waiting")
            count = await command(
                settings, lambda c: discard_parked(c, "test", "cli:me", position=1)
            )
            await receiver.until(lambda: bool(carrying(receiver, "v3")))
            await until_states(settings)
            await execute(settings, "UPDATE items SET name = 'v4'")
            await receiver.until(lambda: bool(carrying(receiver, "v4")))
        assert count == 1
        taken = [r for r in receiver.requests if "bad" not in names([r])]
        assert names(taken) == ["v2", "v3", "v4"]
        audit = await fetch(
            settings, "SELECT actor, action, subject FROM triggerkit.audit WHERE actor ~ 'me'"
        )
        assert audit == [("cli:me", "discard messages", "consumer test")]

    asyncio.run(scenario())


def test_all_that_is_parked_can_be_discarded(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, BLOCKING, TABLE, answer=refuse("bad")) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT generate_series(1, 20), 'bad'",
                "UPDATE items SET name = 'behind'",
            )
            await until(
                settings,
                "SELECT count(*) FROM triggerkit.parked",
                lambda rows: rows == [(40,)],
            )
            count = await command(settings, lambda c: discard_parked(c, "test", "me"))
            await execute(settings, "UPDATE items SET name = 'last'")
            await receiver.until(lambda: names(receiver.requests).count("last") == 20)
            await until_states(settings)
        assert count == 40
        taken = [r for r in receiver.requests if "bad" not in names([r])]
        assert set(names(taken)) == {"last"}

    asyncio.run(scenario())


@pytest.mark.parametrize("every", [False, True])
def test_a_message_that_was_given_up_is_tried_at_once_when_asked(
    settings: Settings, every: bool
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, SKIPPING, TABLE, answer=refuse("bad")) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
            await until_states(settings, "dead")
            receiver.answer = accept
            position = None if every else 1
            await command(settings, lambda c: retry_parked(c, "test", "me", position=position))
            await receiver.until(lambda: len(carrying(receiver, "bad")) == 2)
            await until_states(settings)

    asyncio.run(scenario())


def test_a_retry_by_hand_counts_attempts_anew_and_ends_a_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 600)

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", max_attempts=2), TABLE, answer=refuse("bad")
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
            await until_states(settings, "failing")
            for number in (2, 3):
                await command(settings, lambda c: retry_parked(c, "test", "me"))
                await receiver.until(lambda n=number: len(receiver.requests) == n)  # type: ignore[misc]
                await until(
                    settings,
                    "SELECT attempts FROM triggerkit.parked WHERE state = 'failing' "
                    "AND failures = 1 AND due_at > now() + interval '1 minute'",
                    lambda rows, n=number: rows == [(n,)],  # type: ignore[misc]
                )

    asyncio.run(scenario())


def test_what_cannot_be_tried_is_told_with_the_reason(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, BLOCKING, TABLE, answer=refuse("bad")):
            await execute(
                settings, "INSERT INTO items VALUES (1, 'bad')", "UPDATE items SET name = 'v2'"
            )
            await until_states(settings, "blocked", "waiting")
        with pytest.raises(NotRetryable, match="behind an earlier message"):
            await command(settings, lambda c: retry_parked(c, "test", "me", position=2))
        with pytest.raises(UnknownMessage, match="position 9"):
            await command(settings, lambda c: discard_parked(c, "test", "me", position=9))
        with pytest.raises(UnknownConsumer, match="known consumers: test"):
            await command(settings, lambda c: retry_parked(c, "other", "me"))

    asyncio.run(scenario())


def test_parked_messages_are_listed_in_pages_and_shown_with_their_attempts(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, BLOCKING, TABLE, answer=refuse("bad")):
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 5), 'bad'")
            await until_states(settings, *["blocked"] * 5)
        seen: list[int] = []
        after = None
        while True:
            page: ParkedPage = await command(
                settings,
                lambda c, a=after: list_parked(c, consumer="test", after=a, limit=2),  # type: ignore[misc]
            )
            seen += [message.position for message in page.messages]
            after = page.next
            if after is None:
                break
        assert seen == [1, 2, 3, 4, 5]
        none = await command(settings, lambda c: list_parked(c, state="dead"))
        assert none.messages == []
        detail, attempts = await command(settings, lambda c: show_parked(c, "test", 3))
        assert orjson.loads(detail.body)["record"]["name"] == "bad"
        assert [attempt.status for attempt in attempts] == [422] * len(attempts)
        assert attempts[-1].messages == 1

    asyncio.run(scenario())


def test_the_commands_do_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with pipeline(settings, BLOCKING, TABLE, answer=refuse("bad")):
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'bad')",
                "INSERT INTO items VALUES (2, 'bad')",
            )
            await until_states(settings, "blocked", "blocked")

    asyncio.run(scenario())
    monkeypatch.setenv("DATABASE_URL", settings.source_dsn)
    monkeypatch.delenv("TRIGGERKIT_STATE_URL", raising=False)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(application("messages"), ["messages", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    listed = orjson.loads(run("list", "--consumer", "test", "--json"))
    assert [(m["position"], m["state"]) for m in listed["data"]] == [(1, "blocked"), (2, "blocked")]
    assert listed["next"] is None
    assert orjson.loads(run("list", "--state", "dead", "--json"))["data"] == []
    assert "answered 422" in run("list")
    assert '"name":"bad"' in run("show", "test", "1")
    shown = orjson.loads(run("show", "test", "1", "--json"))
    assert shown["attempts"][-1]["status"] == 422
    assert run("retry", "test", "1") == "retrying 1 message of test now\n"
    assert run("discard", "test", "1") == "discarded 1 message of test\n"
    assert run("discard", "test", "--all", "--yes") == "discarded 1 message of test\n"
