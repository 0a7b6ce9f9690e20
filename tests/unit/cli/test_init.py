"""`init` writes a project, finds the app that is there, and overwrites nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from triggerkit.cli.project.init import FILES, find_app, init, write_project
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project


def test_an_empty_folder_becomes_a_project(tmp_path: Path) -> None:
    write_project(tmp_path / "shop")
    written = {path.name for path in (tmp_path / "shop").iterdir()}
    assert written == {*FILES.values(), ".gitignore"}
    assert Project.load(tmp_path / "shop").tasks == ("tasks",)
    assert (tmp_path / "shop" / "README.md").read_text().startswith("# shop\n")
    assert (tmp_path / "shop" / ".gitignore").read_text() == ".triggerkit/\n.env\n"


@pytest.mark.parametrize(
    ("name", "code", "found"),
    [
        ("main.py", "from fastapi import FastAPI\n\napp = FastAPI()\n", "main:app"),
        ("app/main.py", "site: Starlette = Starlette(routes=[])\n", "app.main:site"),
        ("main.py", "print('no app')\n", None),
    ],
)
def test_an_app_that_is_there_is_found(
    tmp_path: Path, name: str, code: str, found: str | None
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(code)
    assert find_app(tmp_path) == found
    write_project(tmp_path)
    assert tomllib.loads((tmp_path / "triggerkit.toml").read_text()).get("app") == found


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    for name in ("tasks.py", "README.md", ".env.example", ".gitignore"):
        (tmp_path / name).write_text("mine\n")
    told = write_project(tmp_path)
    for name in ("tasks.py", "README.md", ".env.example"):
        assert (tmp_path / name).read_text() == "mine\n"
    assert (tmp_path / ".gitignore").read_text() == "mine\n.triggerkit/\n.env\n"
    assert Project.load(tmp_path).tasks == ("triggerkit_tasks",)
    assert "from triggerkit_tasks import" in (tmp_path / "test_tasks.py").read_text()
    assert "wrote TRIGGERKIT.md" in told


def test_a_package_of_tasks_gets_a_module(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    write_project(tmp_path)
    assert (tmp_path / "tasks" / "orders.py").exists()
    assert Project.load(tmp_path).tasks == ("tasks",)


def test_a_project_is_not_written_over(tmp_path: Path) -> None:
    init(tmp_path)
    with pytest.raises(ConfigurationError, match="triggerkit dev"):
        init(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/shop"):
        init(tmp_path / "file" / "shop")
