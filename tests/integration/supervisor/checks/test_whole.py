"""Preflight as a whole: a sound project has no fault, and the command shows what is found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from tests.acceptance.project import run_command
from tests.integration.supervisor.checks.checking import (
    applied,
    database_name,
    items_checked,
    run_sql,
)
from triggerkit.consumers.definition import changes
from triggerkit.replication.slot.replication_slot import slot_name_for
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import run_checks


def test_a_sound_project_has_no_fault(items: Settings) -> None:
    before = items_checked(items)
    # The tests' own role is a superuser, which is advised against.
    advised = [before["least rights"], before["endpoint of task_0"]]
    assert [check for check in before.values() if not check.ok] == advised
    assert not any(check.failed for check in before.values())
    assert "Shop.items will be made" not in before["publication"].detail
    assert "for Shop.items by `triggerkit apply`" in before["publication"].detail
    assert "will be made" in before["replication slot"].detail
    applied(items, changes("Shop.items"))
    after = items_checked(items)
    assert not any(check.failed for check in after.values())
    assert after["replication slot"].detail == slot_name_for(database_name(items))


def test_advice_is_left_out_where_only_what_must_hold_is_asked_for(settings: Settings) -> None:
    run_sql(settings, "DROP EXTENSION vector")
    found = asyncio.run(run_checks(settings, []))
    assert all(check.ok and check.required for check in found)
    assert not any(check.name == "pgvector" for check in found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without a task."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    return tmp_path


def test_the_command_shows_advice_and_does_not_fail_by_it(
    settings: Settings, project: Path
) -> None:
    run_sql(settings, "DROP EXTENSION vector")
    command = run_command(project, "triggerkit", "check", settings=settings.environment())
    assert command.returncode == 0, command.stdout + command.stderr
    assert "\n! pgvector: " in command.stdout
    assert "    fix it with: CREATE EXTENSION vector;\n" in command.stdout
    assert "✗" not in command.stdout


def test_the_command_fails_by_what_must_hold(settings: Settings, project: Path) -> None:
    name = slot_name_for(database_name(settings))
    run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
    environment = settings.environment()
    text = run_command(project, "triggerkit", "check", settings=environment)
    as_json = run_command(project, "triggerkit", "check", "--json", settings=environment)
    run_sql(settings, f"SELECT pg_drop_replication_slot('{name}')")
    assert (text.returncode, as_json.returncode) == (3, 3)
    assert f"✗ replication slot: {name} is of plugin physical" in text.stdout
    facts = orjson.loads(as_json.stdout)
    assert [f["name"] for f in facts if not f["ok"] and f["required"]] == ["replication slot"]
    for fact in facts:
        assert f"{fact['name']}: {fact['detail']}" in text.stdout
        assert fact["remedy"] is None or fact["remedy"] in text.stdout
