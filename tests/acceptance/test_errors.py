"""What goes wrong at a user's hands: each mistake gets one message that names it and its remedy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from tests.acceptance.project import run_command
from triggerkit.embedded.postgres import EmbeddedPostgres

#: Nothing listens there: port 1 is reserved.
NOWHERE = "postgresql://shop:hunter2@127.0.0.1:1/shop"

#: Settings that are right in form.
SOUND = {
    "DATABASE_URL": NOWHERE,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "TRIGGERKIT_WEBHOOK_SECRET": "a secret that is long enough for everybody",
}

TASK = """
from pydantic import BaseModel

from triggerkit import task


class Order(BaseModel):
    id: int


@task
def confirm_order(order: Order) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one task."""
    (tmp_path / "triggerkit.toml").write_text('tasks = ["tasks"]\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    (tmp_path / "tasks" / "orders.py").write_text(TASK)
    return tmp_path


def triggerkit(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    return run_command(folder, "triggerkit", *arguments, settings=settings)


def said(command: CompletedProcess[str]) -> str:
    """All the command said, on one line, without the lines of a frame around it."""
    return " ".join((command.stdout + command.stderr).replace("│", " ").split())


def assert_refused(command: CompletedProcess[str], code: int, *named: str) -> None:
    """One message on stderr, with what is wrong and what to do."""
    text = said(command)
    assert command.returncode == code, text
    assert "Traceback" not in text
    messages = [line for line in command.stderr.splitlines() if line.startswith("error:")]
    assert len(messages) == 1 or command.stderr.startswith("Usage:"), command.stderr
    for name in named:
        assert name in text, f"{name!r} is not in: {text}"


@pytest.mark.parametrize("command", ["stream", "worker", "apply"])
def test_a_missing_database_url_is_named(folder: Path, command: str) -> None:
    assert_refused(triggerkit(folder, command), 2, "DATABASE_URL", ".env", "triggerkit dev")


def test_a_malformed_database_url_is_refused_without_repeating_it(folder: Path) -> None:
    settings = {**SOUND, "DATABASE_URL": "postgresql//shop:hunter2@localhost/shop"}
    command = triggerkit(folder, "stream", settings=settings)
    assert_refused(command, 2, "database URL", "postgresql://")
    assert "hunter2" not in said(command)


@pytest.mark.parametrize("command", ["stream", "worker", "serve", "check"])
def test_an_unreachable_database_is_named(folder: Path, command: str) -> None:
    settings = {**SOUND, "TRIGGERKIT_PORT": "0"}
    refused = triggerkit(folder, command, settings=settings)
    assert_refused(refused, 4, "cannot connect", "127.0.0.1:1", "check that")
    assert "hunter2" not in said(refused)


def test_dev_with_an_unreachable_database_says_so_and_ends(folder: Path) -> None:
    settings = {"DATABASE_URL": NOWHERE}
    refused = triggerkit(folder, "dev", "--port", "0", settings=settings)
    assert_refused(refused, 4, "cannot connect", "127.0.0.1:1")
    assert "hunter2" not in said(refused)


@pytest.fixture(scope="module")
def replica_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose `wal_level` is not logical."""
    with asyncio.Runner() as runner:
        server = EmbeddedPostgres(tmp_path_factory.mktemp("replica"))
        runner.run(server.start())
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET wal_level = 'replica'")
        runner.run(server.stop())
        runner.run(server.start())
        yield server.url
        runner.run(server.stop())


def test_a_server_without_logical_decoding_is_told_how_to_change(
    folder: Path, replica_url: str
) -> None:
    refused = triggerkit(folder, "apply", settings={**SOUND, "DATABASE_URL": replica_url})
    assert_refused(refused, 3, "wal_level", "ALTER SYSTEM SET wal_level = 'logical'", "restart")


def test_check_tells_of_postgres_even_where_no_redis_is_set(folder: Path, replica_url: str) -> None:
    checked = triggerkit(folder, "check", settings={"DATABASE_URL": replica_url})
    assert checked.returncode != 0
    assert "ALTER SYSTEM SET wal_level = 'logical'" in said(checked)
    assert "REDIS_URL" in said(checked)


@pytest.fixture
def taken_port() -> Iterator[str]:
    """A port somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_a_port_in_use_is_named(folder: Path, taken_port: str, command: str) -> None:
    settings = SOUND if command == "serve" else {}
    refused = triggerkit(folder, command, "--port", taken_port, settings=settings)
    assert_refused(refused, 3, f"127.0.0.1:{taken_port}", "TRIGGERKIT_PORT", "--port")


def test_a_task_module_that_fails_to_import_names_the_users_line(folder: Path) -> None:
    (folder / "tasks" / "broken.py").write_text("import os\n\nos.does_not_exist()\n")
    refused = triggerkit(folder, "tasks")
    assert_refused(refused, 2, "tasks.broken", "broken.py:3", "os.does_not_exist()")


def test_a_task_module_that_is_not_python_names_the_users_line(folder: Path) -> None:
    (folder / "tasks" / "broken.py").write_text("import os\n\ndef broken(:\n")
    assert_refused(triggerkit(folder, "tasks"), 2, "tasks.broken", "broken.py:3")


def test_a_task_module_that_is_not_there_is_named(folder: Path) -> None:
    refused = triggerkit(folder, "tasks", "--tasks", "jobs")
    assert_refused(refused, 2, "'jobs'", "triggerkit.toml")


def test_two_tasks_of_one_name_are_both_shown(folder: Path) -> None:
    (folder / "tasks" / "more_orders.py").write_text(TASK)
    refused = triggerkit(folder, "tasks")
    assert_refused(refused, 2, "'confirm_order'", "orders.py:", "more_orders.py:", "@task(name=")


def test_an_unknown_key_in_the_file_is_named(folder: Path) -> None:
    (folder / "triggerkit.toml").write_text('task = ["tasks"]\n')
    assert_refused(triggerkit(folder, "tasks"), 2, "triggerkit.toml", "'task'", "tasks")


def test_a_file_that_is_not_toml_is_refused_with_its_line(folder: Path) -> None:
    (folder / "triggerkit.toml").write_text('app = "main:app"\ntasks = \n')
    assert_refused(triggerkit(folder, "tasks"), 2, "triggerkit.toml", "line 2")


def test_a_webhook_secret_that_is_too_short_is_refused(folder: Path) -> None:
    settings = {**SOUND, "TRIGGERKIT_WEBHOOK_SECRET": "hunter2"}
    refused = triggerkit(folder, "serve", settings=settings)
    assert_refused(refused, 2, "TRIGGERKIT_WEBHOOK_SECRET: each secret", "24", "token_urlsafe")
    assert "hunter2" not in said(refused)


def test_serve_without_a_webhook_secret_does_not_start(folder: Path) -> None:
    settings = {name: SOUND[name] for name in ("DATABASE_URL", "REDIS_URL")}
    refused = triggerkit(folder, "serve", "--port", "0", settings=settings)
    assert_refused(refused, 2, "TRIGGERKIT_WEBHOOK_SECRET", "24")


def test_a_payload_that_is_not_json_is_refused(folder: Path) -> None:
    refused = triggerkit(folder, "trigger", "confirm_order", "--payload", "{id: 1}", settings=SOUND)
    assert_refused(refused, 2, "--payload is not JSON")


def test_a_payload_file_that_is_not_there_is_named(folder: Path) -> None:
    refused = triggerkit(folder, "trigger", "confirm_order", "--payload", "@nowhere.json")
    assert_refused(refused, 2, "nowhere.json", "No such file")


def test_a_payload_that_does_not_fit_names_the_field(folder: Path) -> None:
    payload = '{"id": "seven"}'
    refused = triggerkit(folder, "trigger", "confirm_order", "--payload", payload, settings=SOUND)
    assert refused.returncode in (1, 2)
    assert_refused(refused, refused.returncode, "id", "integer")


def test_an_unknown_task_is_answered_with_the_known_ones(folder: Path) -> None:
    refused = triggerkit(folder, "trigger", "confirm_ordr", settings=SOUND)
    assert_refused(refused, 2, "'confirm_ordr'", "confirm_order")


def test_an_unknown_status_is_refused(folder: Path) -> None:
    refused = triggerkit(folder, "runs", "list", "--status", "done", settings=SOUND)
    assert_refused(refused, 2, "done", "completed")


def test_a_port_that_is_no_number_is_refused(folder: Path) -> None:
    refused = triggerkit(folder, "serve", settings={**SOUND, "TRIGGERKIT_PORT": "http"})
    assert_refused(refused, 2, "TRIGGERKIT_PORT", "is not a port")


def test_status_says_why_it_is_not_ready(folder: Path) -> None:
    status = triggerkit(folder, "status", settings=SOUND)
    assert status.returncode == 1
    assert "cannot connect" in said(status)
    assert "Traceback" not in said(status)


def test_a_setting_left_empty_counts_as_unset(folder: Path) -> None:
    (folder / ".env").write_text("DATABASE_URL=\n")
    assert_refused(triggerkit(folder, "stream"), 2, "DATABASE_URL is not set")
