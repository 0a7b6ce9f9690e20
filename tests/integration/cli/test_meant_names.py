"""A name that is not known is answered with the one that was probably meant."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from tests.integration.pipeline import execute
from triggerkit.cli.main import application
from triggerkit.settings import Settings
from triggerkit.tasks.declare import declared

TASKS = """
from typing import Any
from triggerkit import Change, changes, task

@task(queue="letters", schedule="0 6 * * *")
def send_letter() -> None: ...

@task(on=changes("public.orders"))
def ship_order(change: Change[dict[str, Any]]) -> None: ...
"""

#: Makes a consumer whose task is named next.
DIRECT = ["consumers", "create", "copies", "--table", "orders", "--set", "via=direct", "--set"]

#: What is typed, and what was meant.
TYPED = [
    (["why", "public.ordres", "1"], "public.orders"),
    (["why", "public.Orders", "1"], "public.orders"),
    (["why", "Shop.orders", "1"], "public.orders"),
    (["models", "ordesr"], "public.orders"),
    (["consumers", "create", "copies", "--table", "order"], "public.orders"),
    (["consumers", "create", "copies", "--table", "orders", "--set", "sort_by=satte"], "state"),
    (["consumers", "create", "copies", "--table", "orders", "--endpoint", "outsid"], "outside"),
    ([*DIRECT, "task=ship_ordr"], "ship_order"),
    (["consumers", "show", "ship_ordre"], "ship_order"),
    (["consumers", "pause", "SHIP_ORDER"], "ship_order"),
    (["backfill", "start", "ship_oder"], "ship_order"),
    (["backfill", "start", "ship_order", "--sort-by", "stat"], "state"),
    (["messages", "retry", "ship_orders", "7"], "ship_order"),
    (["endpoints", "show", "outsde"], "outside"),
    (["endpoints", "test", "outsde"], "outside"),
    (["trigger", "send_lettre"], "send_letter"),
    (["verify", "ship_ordr"], "ship_order"),
    (["queues", "resume", "leters"], "letters"),
    (["schedules", "pause", "send_leter"], "send_letter"),
    (["why", "public.orders", "1", "--consumer", "ship_ordre"], "ship_order"),
    (["trace", "1", "--consumer", "ship_ordre"], "ship_order"),
    (["runs", "list", "--status", "complete"], "completed"),
]

#: Filters that find nothing, since nothing has their name.
FILTERED = [
    (["runs", "list", "--task", "send_lettre"], "send_letter"),
    (["runs", "list", "--queue", "leters", "--json"], "letters"),
    (["runs", "list", "--consumer", "ship_ordre"], "ship_order"),
    (["runs", "list", "--table", "orders"], "public.orders"),
    (["runs", "list", "--schedule", "send_leter"], "send_letter"),
    (["runs", "cancel", "--task", "send_lettre", "--yes"], "send_letter"),
    (["runs", "replay", "--queue", "leters", "--yes"], "letters"),
    (["runs", "errors", "--task", "send_lettre"], "send_letter"),
    (["messages", "list", "--consumer", "ship_ordre"], "ship_order"),
]

#: Filters that find nothing either, by names that there are.
EMPTY = [
    ["runs", "list", "--task", "send_letter", "--queue", "letters", "--schedule", "send_letter"],
    ["runs", "list", "--consumer", "ship_order", "--table", "public.orders"],
    ["runs", "errors", "--task", "send_letter"],
    ["messages", "list", "--consumer", "ship_order"],
]


@pytest.fixture
def project(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose consumer, endpoint, queue and schedule are there."""
    (tmp_path / "letter_tasks.py").write_text(TASKS)
    (tmp_path / "triggerkit.toml").write_text('tasks = ["letter_tasks"]\n')
    monkeypatch.chdir(tmp_path)
    # Those of other projects that were loaded in this process.
    declared.clear()
    monkeypatch.delitem(sys.modules, "letter_tasks", raising=False)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    asyncio.run(execute(settings, "CREATE TABLE orders (id int PRIMARY KEY, state text)"))
    typed("apply")
    typed("endpoints", "create", "outside", "http://127.0.0.1:1/hook")
    typed("queues", "pause", "letters")
    return tmp_path


def typed(*words: str) -> None:
    done = CliRunner().invoke(application(words[0]), list(words))
    assert done.exception is None, (words, done.output, done.exception)


def test_the_name_that_was_meant_is_asked_for(project: Path) -> None:
    missed = []
    for words, meant in TYPED:
        done = CliRunner().invoke(application(words[0]), words)
        said = f"{done.exception}{done.output}"
        if f"did you mean {meant}?" not in said:
            missed.append((words, said))
    assert not missed


def test_a_filter_by_a_name_that_nothing_has_is_told_beside_the_empty_list(project: Path) -> None:
    missed = []
    for words, meant in FILTERED:
        done = CliRunner().invoke(application(words[0]), words)
        if done.exception or f"; did you mean {meant}?" not in done.stderr or "warn" in done.stdout:
            missed.append((words, done.output, done.exception))
    assert not missed
    for words in EMPTY:
        done = CliRunner().invoke(application(words[0]), words)
        assert (done.exception, done.stderr) == (None, ""), words


def test_a_task_that_only_has_runs_any_more_is_known(project: Path, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.runs (id, task, queue, status, payload, max_attempts) "
            "VALUES ('run_1', 'older_task', 'older', 'completed', '{}', 1)"
        )
    words = ["runs", "list", "--task", "older_task", "--status", "failed"]
    assert CliRunner().invoke(application("runs"), words).stderr == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("task = []", "tasks"),
        ("[consumers.a]\ntables = ['orders']\nbatchsize = 3", "batch_size"),
        ("[consumers.a]\ntables = ['odrers']", "public.orders"),
        ("[consumers.a]\ntables = ['orders']\nvia = 'direct'\ntask = 'ship_ordre'", "ship_order"),
        ("[consumers.a]\ntables = ['orders']\nendpoint = 'outsider'", "outside"),
        ("[consumers.a]\ntables = ['orders']\nwhen_changed = ['satte']", "state"),
        ("[consumers.a]\ntables = ['orders']\nfilters = [['satte', '==', 'x']]", "state"),
        ("[endpoints.e]\nurl = 'http://x'\nheader = {}", "headers"),
    ],
)
def test_a_misspelt_name_in_the_file_is_answered_with_the_one_that_was_meant(
    project: Path, text: str, meant: str
) -> None:
    (project / "triggerkit.toml").write_text(f"tasks = ['letter_tasks']\n{text}")
    done = CliRunner().invoke(application("plan"), ["plan"])
    assert f"did you mean {meant}?" in f"{done.exception}{done.output}"


def test_a_view_is_told_from_a_table(project: Path, settings: Settings) -> None:
    asyncio.run(execute(settings, "CREATE VIEW late_orders AS SELECT * FROM orders"))
    done = CliRunner().invoke(application("models"), ["models", "late_orders"])
    assert "public.late_orders is a view, which sends no changes" in str(done.exception)
