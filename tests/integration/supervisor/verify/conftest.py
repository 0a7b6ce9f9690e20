"""A table of notes and one of their copies."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.supervisor.verify.copies import TABLES, Connection


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    """A connection to the database with both tables, empty."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection
