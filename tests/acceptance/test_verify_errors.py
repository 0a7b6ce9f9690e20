"""`triggerkit verify` as a command: its exit code says what kind of thing is wrong."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import copy_reference_project
from tests.acceptance.test_errors import SOUND, assert_refused, triggerkit

PLAIN_TASK = """
from triggerkit import task


@task
def silent(payload: dict) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reference project, and beside its task one that does not say what its effects are."""
    folder = copy_reference_project(tmp_path)
    (folder / "tasks" / "silent.py").write_text(PLAIN_TASK)
    return folder


def test_a_task_that_is_not_there_or_does_not_say_how_is_named(folder: Path) -> None:
    assert_refused(triggerkit(folder, "verify", "nobody"), 2, "'nobody'", "known tasks:", "silent")
    assert_refused(triggerkit(folder, "verify", "silent"), 2, "task silent", "verify=")


def test_a_database_that_does_not_answer_is_named(folder: Path) -> None:
    refused = triggerkit(folder, "verify", settings=SOUND)
    assert_refused(refused, 4, "cannot connect", "127.0.0.1:1")


def test_a_database_without_the_schema_or_the_tables_is_told(
    folder: Path, database_url: str
) -> None:
    settings = {**SOUND, "DATABASE_URL": database_url}
    missing = triggerkit(folder, "verify", settings=settings)
    assert_refused(missing, 3, "public.posts", "does not exist")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
    assert_refused(triggerkit(folder, "verify", settings=settings), 3, "triggerkit upgrade")
