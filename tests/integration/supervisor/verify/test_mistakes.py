"""Queries, tables and tasks that cannot be verified are named as what they are."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tests.integration.supervisor.verify.copies import (
    QUERY,
    Batch,
    Connection,
    damage,
    declared,
    look,
)
from triggerkit import task
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.settings import Settings
from triggerkit.supervisor.verify.compare import verifiable


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1", "returns 1 columns"),
        ("SELECT id, 'missing', 3 FROM notes", "returns 3 columns"),
        ("SELECT 1, 'lost'", "unknown problem; it must be one of missing, stale, orphaned"),
        ("SELECT NULL, 'missing'", "returns a null"),
        ("SELECT id FROM notes WHERE", "syntax error"),
        ("DELETE FROM notes RETURNING id, 'missing'", "syntax error"),
        ("SELECT nextval('numbers'), 'missing'", "read-only transaction"),
    ],
)
def test_a_query_that_cannot_be_used_is_a_mistake_that_is_named(
    settings: Settings, database: Connection, query: str, said: str
) -> None:
    damage(database)
    database.execute("CREATE SEQUENCE numbers")
    with pytest.raises(ConfigurationError, match=f"task copy: verify= .*{said}"):
        look(settings, declared(query))


def test_a_table_that_is_not_there_is_a_failed_preflight(
    settings: Settings, database: Connection
) -> None:
    copy = declared()
    database.execute("DROP TABLE copies")
    with pytest.raises(PreflightFailed, match='relation "copies" does not exist'):
        look(settings, copy)
    database.execute("DROP TABLE notes")
    with pytest.raises(PreflightFailed, match=r"public\.notes does not exist"):
        look(settings, copy)


def test_rows_that_a_policy_hides_are_not_taken_for_gone(
    settings: Settings, database: Connection
) -> None:
    damage(database)
    database.execute(
        "ALTER TABLE copies ENABLE ROW LEVEL SECURITY; CREATE ROLE reader LOGIN;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    )
    source = psycopg.conninfo.make_conninfo(settings.source_dsn, user="reader")
    as_reader = settings.model_copy(
        update={
            "database_url": SecretStr(source),
            "triggerkit_state_url": SecretStr(settings.state_dsn),
        }
    )
    try:
        with pytest.raises(PreflightFailed, match="row-level security"):
            look(as_reader, declared())
    finally:
        database.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_verify_is_for_one_table_and_what_says_how(settings: Settings) -> None:
    @task
    def silent(payload: dict[str, Any]) -> None: ...

    @task(verify=QUERY)
    def followed_by_nothing(batch: Batch) -> None: ...

    with pytest.raises(ConfigurationError, match="does not declare its effects"):
        verifiable(silent)
    with pytest.raises(ConfigurationError, match="on= must name exactly one"):
        verifiable(followed_by_nothing)
