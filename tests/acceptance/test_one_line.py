"""What servers and files refuse is one line with its remedy, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.project import run_command
from tests.acceptance.test_errors import assert_refused

READING = (
    ("runs", "list"),
    ("consumers", "list"),
    ("endpoints", "list"),
    ("trace", "1"),
    ("schedules", "list"),
)


@pytest.fixture
def stranger_url(database_url: str) -> Iterator[str]:
    """The database for a role that may do nothing in it."""
    role = f"stranger_{uuid4().hex[:8]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        yield database_url.replace("://postgres@", f"://{role}@")
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def other_schema_url(database_url: str) -> str:
    """A database whose schema is of a version that has other tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
    return database_url


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_missing_privilege_is_told_with_the_remedy(
    tmp_path: Path, stranger_url: str, redis_url: str, command: tuple[str, ...]
) -> None:
    settings = {"DATABASE_URL": stranger_url, "REDIS_URL": redis_url}
    refused = run_command(tmp_path, "triggerkit", *command, settings=settings)
    assert_refused(refused, 3, "permission denied", "triggerkit check")


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_missing_schema_is_told_with_the_remedy(
    tmp_path: Path, other_schema_url: str, redis_url: str, command: tuple[str, ...]
) -> None:
    settings = {"DATABASE_URL": other_schema_url, "REDIS_URL": redis_url}
    refused = run_command(tmp_path, "triggerkit", *command, settings=settings)
    assert_refused(refused, 3, "triggerkit")
    assert "triggerkit upgrade" in refused.stderr or "triggerkit apply" in refused.stderr


def test_a_role_that_is_not_there_is_told_with_the_remedy(
    tmp_path: Path, database_url: str
) -> None:
    settings = {"DATABASE_URL": database_url.replace("://postgres@", "://nobody_here@")}
    refused = run_command(tmp_path, "triggerkit", "runs", "list", settings=settings)
    assert_refused(refused, 4, "cannot connect", "nobody_here", "check that")


@pytest.mark.parametrize("name", [".env", "triggerkit.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"A=\xff\xfe\xff")
    refused = run_command(tmp_path, "triggerkit", "check")
    assert_refused(refused, 2, name, "UTF-8")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").touch()
    refused = run_command(tmp_path, "triggerkit", "check")
    assert_refused(refused, 2, "DATABASE_URL" if name == ".env" else "triggerkit.toml")


def test_an_unknown_setting_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRIGGERKIT_PROT=8000\n")
    (tmp_path / "tasks.py").touch()
    listed = run_command(tmp_path, "triggerkit", "tasks")
    assert listed.returncode == 0
    assert listed.stderr == "warning: unknown TRIGGERKIT_PROT; did you mean TRIGGERKIT_PORT?\n"


@pytest.mark.parametrize(
    "command",
    [
        ("why", "public.items", "\udcff"),
        ("consumers", "show", "\udcff"),
        ("runs", "list", "--tag", "a\udcff"),
        ("trigger", "send_letter", "--payload", '"\udcff"'),
    ],
    ids=lambda command: command[0],
)
def test_what_is_typed_and_is_no_text_is_named(
    tmp_path: Path, database_url: str, redis_url: str, command: tuple[str, ...]
) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    refused = run_command(tmp_path, "triggerkit", *command, settings=settings)
    assert_refused(refused, 2, "UTF-8", "\\udcff")
