"""A session is pinned, whatever the role, the database, the URL and the environment say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.capture.rig.source import SLOT, Source
from tests.conftest import WEBHOOK_SECRET
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import rows
from triggerkit.errors import SlotError
from triggerkit.replication.capture import Capture
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, connect_blocking, pinned, pool, session_of
from triggerkit.state.migrate import migrate

#: What others ask of their own sessions, each harmful in ours.
ASKED = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "extra_float_digits": "0",
    "idle_in_transaction_session_timeout": "7s",
    "idle_session_timeout": "7s",
    "lock_timeout": "7s",
    "quote_all_identifiers": "on",
    "search_path": "public",
    "standard_conforming_strings": "off",
    "statement_timeout": "7s",
    "synchronous_commit": "off",
    "transaction_timeout": "7s",
}

_FROM = {"idle_session_timeout": 14, "transaction_timeout": 17}

ROLE = "particular"


@pytest.fixture(params=["role", "database", "url and environment"])
def particular(
    source: Source, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Source]:
    """A source whose role, whose database or whose URL asks for all of `ASKED`."""
    asked = {n: v for n, v in ASKED.items() if source.version >= _FROM.get(n, 0)}
    source.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER", "CREATE TABLE items (id int PRIMARY KEY)")
    ours = source.url
    source.url = make_conninfo(ours, user=ROLE)
    if request.param == "role":
        source.execute(*(f"ALTER ROLE {ROLE} SET {n} = '{v}'" for n, v in asked.items()))
    elif request.param == "database":
        source.execute(*(f"ALTER DATABASE postgres SET {n} = '{v}'" for n, v in asked.items()))
    else:
        options = " ".join(f"-c {name}={value}" for name, value in asked.items())
        source.url = make_conninfo(source.url, options=options)
        monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
        monkeypatch.setenv("PGDATESTYLE", "German")
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    yield source
    source.url = ours
    source.reconnect()
    source.execute(
        "SET default_transaction_read_only = off",
        "ALTER DATABASE postgres RESET ALL",
        f"DROP OWNED BY {ROLE}",
        f"DROP ROLE {ROLE}",
    )
    source.reconnect()


def settings_of(version: int) -> tuple[str, dict[str, str]]:
    """A query for what a session's settings are, and what they are to be."""
    expected = {**session_of(version * 10000), "synchronous_commit": "on"}
    shown = ", ".join(f"current_setting('{name}')" for name in expected)
    return f"SELECT {shown}", expected


def test_every_connection_is_pinned(particular: Source) -> None:
    query, expected = settings_of(particular.version)
    dsn = particular.url

    async def through_each() -> list[tuple[str, ...]]:
        found = []
        for replication in (False, True):
            async with await connect(dsn, "test", replication=replication) as connection:
                cursor = await connection.execute(query.encode())
                found += await cursor.fetchall()
        async with pool(dsn, "test", size=1) as states, states.connection() as connection:
            cursor = await connection.execute(query.encode())
            return [*found, *await cursor.fetchall()]

    with connect_blocking(pinned(dsn, "test")) as connection:
        rows = connection.execute(query.encode()).fetchall()
    for row in [*rows, *asyncio.run(through_each())]:
        assert dict(zip(expected, row, strict=True)) == expected


def test_values_print_the_same_in_stream_and_backfill(particular: Source, redis_url: str) -> None:
    settings = Settings.parse(
        {
            "DATABASE_URL": particular.url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )
    row = (
        "decode('00ff5c', 'hex'), make_date(2024, 3, 1), interval '1 day 2 hours', "
        "0.1::float8 + 0.2, to_timestamp(0), ARRAY[NULL, 'x']"
    )

    async def scenario() -> None:
        async with await connect(particular.url, "test") as state:
            await migrate(state)
        async with Receiver.start() as receiver:
            await execute(
                settings,
                "CREATE TABLE kinds (id int PRIMARY KEY, b bytea, d date, i interval, f float8, "
                "z timestamptz, n text[])",
                f"INSERT INTO kinds VALUES (1, {row})",
            )
            await declare(settings, receiver, rows("kinds"))
            async with streaming(settings, receiver):
                await execute(settings, f"INSERT INTO kinds VALUES (2, {row})")
                await receiver.until(lambda: len(receiver.messages) == 2)
            found = {m["action"]: m["record"] for m in receiver.messages}
            assert found.keys() == {"read", "insert"}
            for record in found.values():
                del record["id"]
                assert record == {
                    "b": "\\x00ff5c",
                    "d": "2024-03-01",
                    "i": "1 day 02:00:00",
                    "f": 0.30000000000000004,
                    "z": "1970-01-01T00:00:00.000000Z",
                    "n": [None, "x"],
                }

    asyncio.run(scenario())


def test_a_missing_publication_is_noticed_though_the_role_wants_no_warnings(
    particular: Source,
) -> None:
    particular.follow("items")
    with psycopg.connect(particular.url, autocommit=True) as others:
        others.execute("SET default_transaction_read_only = off")
        others.execute("INSERT INTO items VALUES (1)")
        others.execute(f"DROP PUBLICATION {PUBLICATION}".encode())
        others.execute("INSERT INTO items VALUES (2)")

    async def stream() -> None:
        async with (
            asyncio.timeout(30),
            Capture.open(particular.url, SLOT, PUBLICATION, 0) as capture,
        ):
            while True:
                await capture.read()

    with pytest.raises(SlotError, match="was missing when changes were written"):
        asyncio.run(stream())
