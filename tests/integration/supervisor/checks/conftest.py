"""A table to follow, and a role that may not do it yet."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from tests.integration.supervisor.checks.checking import run_sql
from triggerkit.settings import Settings

#: A table that can be followed, in a schema whose name has to be quoted.
TABLE = """
CREATE SCHEMA "Shop";
CREATE TABLE "Shop"."items" (id bigint PRIMARY KEY, sku text NOT NULL UNIQUE, note text)
"""


@pytest.fixture
def items(settings: Settings) -> Settings:
    """Settings for a database with a table to follow."""
    run_sql(settings, TABLE)
    return settings


@pytest.fixture
def role(items: Settings) -> Iterator[str]:
    """A role with no rights at all, under a name that has to be quoted."""
    name = f'shop "{uuid4().hex[:8]}"'
    identifier = sql.Identifier(name)
    with psycopg.connect(items.source_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(identifier))
        connection.execute(sql.SQL("DROP ROLE {}").format(identifier))


@pytest.fixture
def restricted(items: Settings, role: str) -> Settings:
    """Settings whose source is read by that role; the state is the superuser's."""
    dsn = SecretStr(make_conninfo(items.source_dsn, user=role))
    return items.model_copy(
        update={"database_url": dsn, "triggerkit_state_url": items.database_url}
    )
