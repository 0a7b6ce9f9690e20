"""A source database is that of a server and an OID there; names are labels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.integration.pipeline import execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.editing import Editor
from triggerkit.consumers.definition import changes, rows
from triggerkit.consumers.source.database import OWN_NAMES, CaptureNames
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY)"


@pytest.fixture
def names(settings: Settings) -> Iterator[list[str]]:
    """Names of databases that a test makes; they and their slots are gone after it."""
    made: list[str] = []
    yield made
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = %s",
                [name],
            )
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def make(settings: Settings, name: str) -> str:
    """Make a database with a table; its connection string."""
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
        connection.execute(create)
    dsn = make_conninfo(settings.source_dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
    return dsn


async def applied(
    settings: Settings,
    dsn: str,
    consumer: str,
    *,
    may_lose: bool = False,
    capture: CaptureNames = OWN_NAMES,
) -> list[str]:
    async with (
        await connect(dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        declared = [Declared(consumer, rows("items"), "/push")]
        url = "http://127.0.0.1:1"
        return await apply(source, state, declared, url, may_lose=may_lose, names=capture)


def known(settings: Settings, *columns: str) -> list[tuple[Any, ...]]:
    """What the state knows of databases, in the order they were made."""
    query = sql.SQL("SELECT {} FROM triggerkit.databases ORDER BY id").format(
        sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with psycopg.connect(settings.state_dsn) as connection:
        return connection.execute(query).fetchall()


def change(settings: Settings, statement: str) -> None:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_names_that_become_alike_have_slots_of_their_own(
    settings: Settings, names: list[str]
) -> None:
    base = f"test_{uuid4().hex[:8]}"
    names += [f"{base}_x", f"{base}-x", f"{base}_X"]
    for name in names:
        asyncio.run(applied(settings, make(settings, name), f"of {name}"[3:]))
    slots = [slot for (slot,) in known(settings, "slot_name")]
    assert slots[0] == f"triggerkit_{base}_x"
    assert len(set(slots)) == 3


def test_a_renamed_database_is_the_one_it_was(settings: Settings, names: list[str]) -> None:
    first, second = f"test_{uuid4().hex[:8]}", f"test_{uuid4().hex[:8]}"
    names += [first, second]
    dsn = make(settings, first)
    asyncio.run(applied(settings, dsn, "test"))
    before = known(settings, "id", "slot_name", "slot_epoch")
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        connection.execute(rename.format(sql.Identifier(first), sql.Identifier(second)))
    renamed = make_conninfo(dsn, dbname=second)
    assert "created" not in "\n".join(asyncio.run(applied(settings, renamed, "test")))
    assert known(settings, "id", "slot_name", "slot_epoch") == before
    assert known(settings, "name") == [(second,)]


def test_one_name_on_two_servers_is_two_databases(settings: Settings, names: list[str]) -> None:
    name = f"test_{uuid4().hex[:8]}"
    names.append(name)
    dsn = make(settings, name)
    asyncio.run(applied(settings, dsn, "one"))
    # As if that had been another server, whose database has this name too.
    change(settings, "UPDATE triggerkit.databases SET system_identifier = '1'")
    before = known(settings, "id", "slot_epoch", "system_identifier")
    asyncio.run(applied(settings, dsn, "two"))
    assert known(settings, "id", "slot_epoch", "system_identifier")[:1] == before
    assert known(settings, "name") == [(name,), (f"{name}-2",)]


def test_a_server_that_takes_anothers_place_has_to_be_told(
    settings: Settings, names: list[str]
) -> None:
    name = f"test_{uuid4().hex[:8]}"
    names.append(name)
    dsn = make(settings, name)
    asyncio.run(applied(settings, dsn, "test"))
    change(settings, "UPDATE triggerkit.databases SET system_identifier = '1'")
    with pytest.raises(PreflightFailed, match="apply --yes"):
        asyncio.run(applied(settings, dsn, "test"))
    said = "\n".join(asyncio.run(applied(settings, dsn, "test", may_lose=True)))
    assert "triggerkit backfill start test" in said
    assert len(known(settings, "name")) == 1
    with psycopg.connect(settings.state_dsn) as connection:
        gaps = connection.execute("SELECT kind FROM triggerkit.gaps").fetchall()
    assert gaps == [("slot",)]
    assert "missing" not in "\n".join(asyncio.run(applied(settings, dsn, "test")))


def test_publication_and_slot_that_somebody_else_made_are_used_as_they_are(
    settings: Settings,
) -> None:
    slot = f"sequin_{uuid4().hex[:8]}"
    capture = CaptureNames("sequin_pub", slot)

    async def scenario() -> None:
        await execute(
            settings,
            TABLE,
            "INSERT INTO items VALUES (1)",
            "CREATE PUBLICATION sequin_pub FOR ALL TABLES",
            f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')",
        )
        async with Receiver.start() as receiver:
            async with (
                await connect(settings.source_dsn, "test") as source,
                await connect(settings.state_dsn, "test") as state,
            ):
                declared = [Declared("test", rows("items"), "/push")]
                await apply(source, state, declared, receiver.url, names=capture)
                cursor = await source.execute("SELECT pubname FROM pg_publication")
                assert await cursor.fetchall() == [("sequin_pub",)]
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (2)")
                await receiver.until(lambda: len(receiver.messages) == 2)
        assert known(settings, "publication_name", "slot_name") == [("sequin_pub", slot)]

    asyncio.run(scenario())


def test_the_slot_of_a_captured_database_is_not_changed_by_a_setting(settings: Settings) -> None:
    asyncio.run(execute(settings, TABLE))
    dsn = settings.source_dsn
    asyncio.run(applied(settings, dsn, "test"))
    with pytest.raises(PreflightFailed, match="TRIGGERKIT_SLOT is other: unset it"):
        asyncio.run(applied(settings, dsn, "test", capture=CaptureNames(slot="other")))


def test_our_own_tables_cannot_be_followed(settings: Settings) -> None:
    async def follow() -> None:
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            declared = [Declared("test", changes("triggerkit.runs"), "/push")]
            await apply(source, state, declared, "http://127.0.0.1:1")

    with pytest.raises(ConfigurationError, match=r"triggerkit\.runs is of our own state"):
        asyncio.run(follow())


def test_editing_a_consumer_on_another_server_is_refused(
    settings: Settings, names: list[str]
) -> None:
    name = f"test_{uuid4().hex[:8]}"
    names.append(name)
    dsn = make(settings, name)

    async def scenario() -> None:
        async with (
            await connect(dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            editor = Editor(source, state, Keyring([]), "http://127.0.0.1:1", "test")
            await editor.create("test", {"tables": ["items"]})
            change(settings, "UPDATE triggerkit.databases SET system_identifier = '1'")
            with pytest.raises(PreflightFailed, match="apply --yes"):
                await editor.edit("test", {"batch_size": 2}, may_lose=False)

    asyncio.run(scenario())
    assert len(known(settings, "name")) == 1
