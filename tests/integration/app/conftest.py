"""The reference tables in the test's database, and a server of embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import DIMENSIONS, reference_tables


@pytest.fixture
def api() -> Iterator[OpenAIServer]:
    """A server whose answers a test may change."""
    with OpenAIServer(DIMENSIONS).running() as server:
        yield server


@pytest.fixture
def database(
    database_url: str, api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """The database, where the task's settings point to it and to the server."""
    with reference_tables(database_url, api, monkeypatch) as connection:
        yield connection
