"""Triggers in a transaction of another library's: accepted if it commits, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import asyncpg
import django
import pytest
from django.conf import settings as django_settings
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.integration.run_state import RunState
from triggerkit import Debounce, task
from triggerkit.errors import ConfigurationError, InvalidPayload


@task(name="greet_foreign")
def greet(name: dict[str, Any]) -> str:
    """Greet."""
    return f"hello {name['name']}"


ADA = {"name": "ada"}


def parts(state: RunState) -> dict[str, Any]:
    return conninfo_to_dict(state.settings.state_dsn)


def url(state: RunState, driver: str) -> URL:
    given = parts(state)
    query = {"host": str(given["host"]), "port": str(given.get("port", 5432))}
    return URL.create(
        f"postgresql+{driver}", username=given["user"], database=given["dbname"], query=query
    )


@contextmanager
def of_sqlalchemy(state: RunState) -> Iterator[Any]:
    engine = create_engine(url(state, "psycopg"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextmanager
def of_sqlalchemy_session(state: RunState) -> Iterator[Any]:
    engine = create_engine(url(state, "psycopg"))
    with Session(engine) as session:
        yield session
    engine.dispose()


@contextmanager
def of_django(state: RunState) -> Iterator[Any]:
    if not django_settings.configured:
        django_settings.configure()
        django.setup()
    given = parts(state)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given["user"],
        "HOST": given["host"],
        "PORT": given.get("port", ""),
    }
    connection = ConnectionHandler({"default": database})["default"]
    connection.set_autocommit(False)
    yield connection
    connection.close()


@pytest.mark.parametrize("opened", [of_sqlalchemy, of_sqlalchemy_session, of_django])
def test_a_sync_connection_takes_the_runs_along(
    triggers: RunState, opened: Callable[[RunState], AbstractContextManager[Any]]
) -> None:
    with opened(triggers) as connection:
        greet.trigger(ADA, connection=connection)
        connection.rollback()
        first = greet.trigger(ADA, connection=connection, idempotency_key="ada")
        with pytest.raises(InvalidPayload):
            greet.trigger(ADA, connection=connection, concurrency_key="a\x00b")
        greet.trigger_many([ADA, ADA], connection=connection)
        assert triggers.statuses() == []
        connection.commit()
        assert triggers.statuses() == ["queued"] * 3
        again = greet.trigger(ADA, connection=connection, idempotency_key="ada")
        assert (again.id, again.duplicate) == (first.id, True)
        with pytest.raises(ConfigurationError, match=r"use `task\.trigger"):
            asyncio.run(greet.atrigger(ADA, connection=connection))
        connection.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session_of_sqlalchemy_takes_the_runs_along(
    triggers: RunState, driver: str
) -> None:
    async def scenario() -> None:
        engine = create_async_engine(url(triggers, driver))
        async with AsyncSession(engine) as session:
            await greet.atrigger(ADA, connection=session)
            await session.rollback()
            first = await greet.atrigger(ADA, connection=session, idempotency_key="ada")
            await greet.atrigger_many([ADA, ADA], connection=session)
            assert triggers.statuses() == []
            await session.commit()
            assert triggers.statuses() == ["queued"] * 3
        async with engine.connect() as connection:
            again = await greet.atrigger(ADA, connection=connection, idempotency_key="ada")
            assert (again.id, again.duplicate) == (first.id, True)
            with pytest.raises(ConfigurationError, match=r"use `await task\.atrigger"):
                greet.trigger(ADA, connection=connection)
        await engine.dispose()

    asyncio.run(scenario())


def test_a_connection_of_asyncpg_takes_the_runs_along(triggers: RunState) -> None:
    given = parts(triggers)

    async def scenario() -> None:
        connection = await asyncpg.connect(
            host=given["host"],
            port=int(given.get("port", 5432)),
            user=given["user"],
            database=given["dbname"],
        )
        transaction = connection.transaction()
        await transaction.start()
        await greet.atrigger(ADA, connection=connection)
        await transaction.rollback()
        async with connection.transaction():
            first = await greet.atrigger(
                ADA, connection=connection, idempotency_key="ada", metadata={"a": 1}, delay=60
            )
            with pytest.raises(InvalidPayload):
                await greet.atrigger(ADA, connection=connection, concurrency_key="a\x00b")
            debounce = Debounce("page", 60, 90)
            one = await greet.atrigger(ADA, connection=connection, debounce=debounce)
            other = await greet.atrigger(ADA, connection=connection, debounce=debounce)
            assert (one.id, other.duplicate) == (other.id, True)
            assert triggers.statuses() == []
        assert triggers.statuses() == ["delayed", "delayed"]
        # Outside of a block it is accepted at once.
        again = await greet.atrigger(ADA, connection=connection, idempotency_key="ada")
        assert (again.id, again.duplicate) == (first.id, True)
        await connection.close()

    asyncio.run(scenario())


def test_what_is_no_connection_is_refused_by_what_fits(triggers: RunState) -> None:
    with pytest.raises(ConfigurationError, match="connection= is a psycopg 3 connection"):
        greet.trigger(ADA, connection=object())
    with pytest.raises(ConfigurationError, match="connection= is a psycopg 3 connection"):
        asyncio.run(greet.atrigger(ADA, connection=object()))
