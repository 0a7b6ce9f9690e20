"""Why a change has no effect, up to its receiver: one conclusion and its remedy."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import psycopg
import pytest
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from tests.integration.consumers.test_trace import logged, settled, until
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit.cli.main import application
from triggerkit.consumers.definition import changes, rows
from triggerkit.errors import ConfigurationError, UnknownRun
from triggerkit.settings import Settings
from triggerkit.state.connect import pool
from triggerkit.why.answer import Answer
from triggerkit.why.ask import Question, ask

TABLE = (
    "CREATE TABLE items (id bigint PRIMARY KEY, name text, note text)",
    "ALTER TABLE items REPLICA IDENTITY FULL",
)
INSERT = "INSERT INTO items VALUES (1, 'one', NULL)"


async def why(settings: Settings, *words: str, consumer: str | None = None) -> Answer:
    async with pool(settings.state_dsn, "test", size=2) as states:
        return await ask(states, settings, (), Question.of(words, consumer))


async def settled_at(settings: Settings, position: int) -> None:
    await until(lambda: settled(settings, position))


async def refuse(received: Received) -> Response:
    return JSONResponse({}, 422)


def test_what_was_delivered_and_what_a_definition_leaves_out_is_told_apart(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items"), "all")
            choosy = changes("items", when_changed=["note"])
            await declare(settings, receiver, choosy, "choosy")
            others = changes("items", filters=[("name", "==", "other")])
            await declare(settings, receiver, others, "others")
            inserts = changes("items", actions=["insert"])
            await declare(settings, receiver, inserts, "inserts")
            async with streaming(settings, receiver):
                await execute(settings, INSERT, "UPDATE items SET name = 'uno'")
                await receiver.until(lambda: len(receiver.requests) >= 4)
                await settled_at(settings, 2)
            found = await why(settings, "items", "1", consumer="all")
            assert (found.code, found.remedy) == ("delivered", None)
            assert found.searched_from == 1
            assert found.steps[-1].what == "insert"
            assert {step.position for step in found.steps} == {1, 2}
            found = await why(settings, "public.items", "1", consumer="choosy")
            assert found.code == "when_changed"
            assert "note" in found.conclusion
            found = await why(settings, "public.items", "1", consumer="others")
            assert found.code == "filtered"
            assert "name == other" in found.conclusion
            found = await why(settings, "public.items", "1", consumer="inserts")
            assert found.code == "action_not_wanted"
            # The position alone, and the key of the message's own.
            found = await why(settings, "2", consumer="all")
            assert (found.code, found.subject.key) == ("delivered", ["1"])
            key = receiver.requests[0].messages[0]["metadata"]["idempotency_key"]
            found = await why(settings, key)
            assert (found.subject.position, found.subject.idempotency_key) == (1, key)

    asyncio.run(scenario())
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    printed = CliRunner().invoke(application("why"), ["why", "items", "1", "--consumer", "others"])
    assert printed.exit_code == 0, printed.output
    assert "items 1: others does not get it: filtered by name == other" in printed.output
    assert "looked through the log from position 1 on" in printed.output
    as_json = CliRunner().invoke(application("why"), ["why", "items", "1", "--json"])
    answer: dict[str, Any] = orjson.loads(as_json.output)
    assert set(answer) == {"subject", "conclusion", "code", "remedy", "steps", "searched_from"}


def test_a_parked_change_says_why_and_what_waits_behind_it_names_it(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items", max_attempts=1), "strict")
            async with streaming(settings, receiver):
                await execute(settings, INSERT)
                await settled_at(settings, 1)
                found = await why(settings, "items", "1")
                assert found.code == "parked"
                assert "answered 422" in found.conclusion
                assert found.remedy is not None
                assert found.remedy.startswith("triggerkit messages retry strict 1")
                await execute(settings, "UPDATE items SET name = 'uno'")
                await settled_at(settings, 2)
                found = await why(settings, "items", "1")
                assert found.code == "waiting_behind"
                assert "position 1" in found.conclusion
                await execute(settings, "TRUNCATE items")
                await settled_at(settings, 3)
                found = await why(settings, "items", "1")
                assert found.code == "superseded"
                assert found.remedy == "triggerkit messages discard strict 2"

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "code"), [(401, "endpoint_unauthorized"), (500, "endpoint_")])
def test_an_endpoint_that_refuses_is_named_with_its_answer(
    settings: Settings, status: int, code: str
) -> None:
    async def fail(received: Received) -> Response:
        return JSONResponse({}, status)

    async def scenario() -> None:
        async with Receiver.start(fail) as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items"), "all")
            async with streaming(settings, receiver):
                await execute(settings, INSERT)
                await until(lambda: attempted(settings))
                found = await why(settings, "items", "1")
            assert found.code.startswith(code)
            assert str(status) in found.conclusion
            assert receiver.url in found.conclusion

    asyncio.run(scenario())


def attempted(settings: Settings) -> bool:
    with psycopg.connect(settings.state_dsn) as connection:
        return connection.execute("SELECT FROM triggerkit.deliveries").fetchone() is not None


def test_a_paused_consumer_and_one_without_a_stream_say_how_to_go_on(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items", paused=True), "resting")
            async with streaming(settings, receiver):
                await execute(settings, INSERT)
                await until(lambda: logged(settings))
                found = await why(settings, "items", "1")
                remedy = "triggerkit consumers resume resting"
                assert (found.code, found.remedy) == ("consumer_paused", remedy)
            await execute(settings, "INSERT INTO items VALUES (2, 'two', NULL)")
            found = await why(settings, "items", "2")
            assert found.code == "stream_not_running"
            found = await why(settings, "items", "3")
            assert found.code == "row_unknown"

    asyncio.run(scenario())


def test_what_is_not_captured_says_why(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE, "INSERT INTO items VALUES (7, 'before', NULL)")
            await declare(settings, receiver, changes("items"), "all")
            async with streaming(settings, receiver):
                found = await why(settings, "items", "7")
                assert found.code == "before_consumer"
                assert found.remedy == "triggerkit backfill start all --table public.items"
                await execute(settings, "ALTER PUBLICATION triggerkit DROP TABLE items", INSERT)
                found = await why(settings, "items", "1")
                assert found.code == "not_published"
                assert found.remedy == (
                    "triggerkit apply && triggerkit backfill start all --table public.items"
                )
                await execute(settings, "ALTER PUBLICATION triggerkit ADD TABLE items")
            drop = (
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = current_database()"
            )
            await execute(settings, drop, "INSERT INTO items VALUES (2, 'two', NULL)")
            found = await why(settings, "items", "2")
            assert found.code == "slot_missing"
            await declare(settings, receiver, changes("items"), "all")
            found = await why(settings, "items", "2")
            assert found.code in ("gap", "stream_not_running")

    asyncio.run(scenario())


def test_a_backfill_that_has_not_come_to_a_row_says_so(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE, INSERT)
            await declare(settings, receiver, rows("items"), "all")
            await execute(settings, "UPDATE triggerkit.backfills SET state = 'paused'")
            async with streaming(settings, receiver):
                found = await why(settings, "items", "1")
                assert (found.code, found.remedy) == (
                    "backfill_paused",
                    "triggerkit backfill resume 1",
                )

    asyncio.run(scenario())


def test_what_is_asked_wrongly_is_said_in_the_keys_own_words(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                *TABLE,
                "CREATE TABLE pairs (a int, b text, PRIMARY KEY (a, b))",
                "INSERT INTO pairs VALUES (1, 'x')",
            )
            await declare(settings, receiver, changes("items"), "all")
            with pytest.raises(ConfigurationError, match=r"did you mean public\.items"):
                await why(settings, "itms", "1")
            with pytest.raises(ConfigurationError, match=r"\(a, b\): give 2 values, not 1"):
                await why(settings, "pairs", "1")
            with pytest.raises(ConfigurationError, match="id bigint"):
                await why(settings, "items", "one")
            with pytest.raises(ConfigurationError, match="give the key"):
                await why(settings, "public.items")
            with pytest.raises(UnknownRun):
                await why(settings, "run_00000000000000000000000000")
            with pytest.raises(UnknownRun):
                await why(settings, "no such key 1")
            found = await why(settings, "pairs", "01", "x")
            assert (found.code, found.subject.key) == ("no_consumer", ["1", "x"])

    asyncio.run(scenario())
