"""The stream loses its source: it says so once, tries again, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"

TERMINATE = """
SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
WHERE database = current_database() AND active_pid IS NOT NULL
"""


def told(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    """What the stream said with `word` in it."""
    messages = [r.getMessage() for r in caplog.records if r.name == "triggerkit.supervisor.stream"]
    return [message for message in messages if word in message]


def keys(receiver: Receiver) -> set[int]:
    return {int(key) for r in receiver.requests for key in r.keys}


def logged(settings: Settings) -> tuple[int, int, int]:
    """Entries, rows and the last position of the log."""
    with psycopg.connect(settings.state_dsn) as connection:
        row = connection.execute(
            "SELECT count(*), count(DISTINCT key), max(position) FROM triggerkit.events"
        ).fetchone()
    assert row is not None
    return row


async def until_told(caplog: pytest.LogCaptureFixture, word: str, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while True:
            if len(told(caplog, word)) >= times:
                return
            await asyncio.sleep(0.01)


def test_a_walsender_that_is_terminated_in_the_midst_of_changes(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "triggerkit")
    times, each = 3, 20_000

    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=1000), TABLE) as receiver:
            for number in range(times):
                first = number * each
                await execute(
                    settings,
                    f"INSERT INTO items SELECT generate_series({first}, {first + each - 2})",
                    TERMINATE,
                    f"INSERT INTO items VALUES ({first + each - 1})",
                )
                await until_told(caplog, "restored", number + 1)
            await receiver.until(lambda: len(keys(receiver)) == times * each, timeout_s=60)
        assert logged(settings) == (times * each,) * 3
        assert len(told(caplog, "lost")) == len(told(caplog, "restored")) == times
        assert "terminating connection" in told(caplog, "lost")[0]

    asyncio.run(scenario())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that asks after, and gives up, a silent connection soon."""
    monkeypatch.setattr("triggerkit.replication.connection.STATUS_S", 0.1)
    monkeypatch.setattr("triggerkit.replication.connection.SILENCE_S", 1.0)


def through(settings: Settings, proxy: Proxy) -> Settings:
    """Settings with the source behind the proxy, and the state reached as it was."""
    options = "-c wal_sender_timeout=1s"
    return settings.model_copy(
        update={
            "database_url": SecretStr(proxy.dsn(settings.source_dsn, options=options)),
            "triggerkit_state_url": SecretStr(settings.state_dsn),
        }
    )


@asynccontextmanager
async def proxied(settings: Settings) -> AsyncIterator[tuple[Receiver, Proxy]]:
    """A stream to a receiver, whose source is reached through a proxy."""
    async with Receiver.start() as receiver, Proxy.start(settings.source_dsn) as proxy:
        await execute(settings, TABLE)
        await declare(settings, receiver, changes("items", batch_size=10))
        async with streaming(through(settings, proxy), receiver):
            yield receiver, proxy


@pytest.mark.usefixtures("impatient")
def test_a_line_that_is_dead_without_being_closed_is_noticed(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "triggerkit")

    async def scenario() -> None:
        async with proxied(settings) as (receiver, proxy):
            await execute(settings, "INSERT INTO items VALUES (1)")
            await receiver.until(lambda: keys(receiver) == {1})
            proxy.cut()
            await execute(settings, "INSERT INTO items VALUES (2)")
            await receiver.until(lambda: keys(receiver) == {1, 2})
        assert logged(settings) == (2, 2, 2)
        assert "nothing came" in told(caplog, "lost")[0]
        assert len(told(caplog, "lost")) == len(told(caplog, "restored")) == 1

    asyncio.run(scenario())


@pytest.mark.usefixtures("impatient")
def test_an_idle_line_that_answers_is_not_given_up(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "triggerkit")

    async def scenario() -> None:
        async with proxied(settings) as (receiver, proxy):
            # Questions and answers, one of each at most in two intervals: twice the patience.
            async with asyncio.timeout(30):
                await proxy.until_forwarded(40)
            await execute(settings, "INSERT INTO items VALUES (1)")
            await receiver.until(lambda: keys(receiver) == {1})
        assert told(caplog, "lost") == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("taken", "given", "reason", "remedy"),
    [
        ("NOLOGIN", "LOGIN", "not permitted to log in", "user and password are correct"),
        ("NOREPLICATION", "REPLICATION", "(?i)wal ?sender", "ALTER ROLE"),
    ],
    ids=["login", "replication"],
)
def test_a_right_that_is_taken_away_is_told_with_its_remedy_until_it_is_back(
    taken: LiteralString, given: LiteralString, reason: str, remedy: str, settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "triggerkit")
    name = f"streamer_{taken.lower()}_{os.getpid()}"
    role = sql.Identifier(name)

    async def scenario() -> None:
        async with Receiver.start() as receiver, await connect(settings.source_dsn, "t") as owner:
            await owner.execute(sql.SQL("CREATE ROLE {} LOGIN REPLICATION").format(role))
            try:
                await execute(settings, TABLE)
                await declare(settings, receiver, changes("items", batch_size=10))
                async with streaming(as_role(settings, name), receiver):
                    await owner.execute(alter(role, taken))
                    await owner.execute(TERMINATE)
                    await execute(settings, "INSERT INTO items VALUES (1)")
                    await until_told(caplog, remedy)
                    await owner.execute(alter(role, given))
                    await receiver.until(lambda: keys(receiver) == {1})
            finally:
                await owner.execute(sql.SQL("DROP ROLE {}").format(role))
            assert len(told(caplog, "restored")) == 1

    asyncio.run(scenario())
    [message] = told(caplog, remedy)
    assert re.search(reason, message)


def alter(role: sql.Identifier, option: LiteralString) -> sql.Composed:
    return sql.SQL("ALTER ROLE {} " + option).format(role)


def as_role(settings: Settings, role: str) -> Settings:
    """Settings with a source that is reached as `role`, and the state as it was."""
    source = make_conninfo(settings.source_dsn, user=role)
    return settings.model_copy(
        update={
            "database_url": SecretStr(source),
            "triggerkit_state_url": SecretStr(settings.state_dsn),
        }
    )
