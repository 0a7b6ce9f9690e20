"""`triggerkit import`: the file it writes, and that none is overwritten."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from triggerkit.cli.main import application
from triggerkit.errors import ConfigurationError

FILE = """
http_endpoints:
  - {name: app, url: "http://127.0.0.1:3001/hook"}
sinks:
  - {name: posts, table: posts, destination: {type: webhook, http_endpoint: app}}
  - {name: other, table: posts, destination: {type: nats}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sequin.yaml").write_text(FILE)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(application("import"), ["import", *arguments])


def test_a_file_is_written_once_and_added_to_when_asked(folder: Path) -> None:
    done = run("sequin.yaml")
    assert done.exit_code == 0, done.output
    assert "sinks.other: the destination 'nats' has no counterpart" in done.output
    assert "wrote triggerkit.toml: 1 consumer, 1 endpoint" in done.output
    written = (folder / "triggerkit.toml").read_text()
    assert tomllib.loads(written)["tasks"] == []
    again = run("sequin.yaml")
    assert isinstance(again.exception, ConfigurationError)
    assert "is there already: add to it with --append" in str(again.exception)
    taken = run("sequin.yaml", "--append")
    assert "has [endpoints.app] already" in str(taken.exception)
    assert (folder / "triggerkit.toml").read_text() == written


def test_a_projects_own_file_keeps_what_it_has(folder: Path) -> None:
    (folder / "triggerkit.toml").write_text('tasks = ["work"]  # ours\n')
    done = run("sequin.yaml", "--append")
    assert done.exit_code == 0, done.output
    text = (folder / "triggerkit.toml").read_text()
    assert text.startswith('tasks = ["work"]  # ours\n')
    assert tomllib.loads(text)["consumers"]["posts"]["endpoint"] == "app"


def test_it_is_printed_or_written_elsewhere(folder: Path) -> None:
    printed = run("sequin.yaml", "--output", "-")
    assert tomllib.loads(printed.output)["consumers"]["posts"]["tables"] == ["public.posts"]
    assert not (folder / "triggerkit.toml").exists()
    assert run("sequin.yaml", "--output", "other.toml").exit_code == 0
    assert (folder / "other.toml").exists()
    assert "cannot be read" in str(run("nothing.yaml").exception)
    assert "--output" in str(run("sequin.yaml", "--output", "no/where.toml").exception)
