"""docs/architecture.md: the paths it names are there, and every folder is in it."""

from __future__ import annotations

import re

import pytest

from tests import ROOT
from tests.module_index import HEADING, written

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "triggerkit"

#: Fewest rows that the tables of changes have.
LEAST_CHANGES = 50


def named_paths() -> list[str]:
    """What the page names as a path."""
    names = set(re.findall(r"`([\w./]+)`", PAGE.partition(HEADING)[0]))
    return sorted(name for name in names if "/" in name[1:] or name.endswith(".py"))


@pytest.mark.parametrize("path", named_paths())
def test_a_path_of_the_page_is_there(path: str) -> None:
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


def test_the_way_of_a_change_names_modules_that_are_there() -> None:
    drawn = PAGE.partition("```\n")[2].partition("```")[0]
    folder, missing = "", []
    for name in re.findall(r"[a-z_/]+\.py|[a-z]+/(?= )", drawn):
        if name.endswith(".py"):
            folder = name.rpartition("/")[0] or folder
        if not (PACKAGE / folder / name.rpartition("/")[2]).exists():
            missing.append(name)
    assert not missing


def test_every_folder_of_the_package_is_on_the_page() -> None:
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}
    top = {folder.parts[0] for folder in folders if folder.parts}
    assert not [folder for folder in sorted(top) if f"| `{folder}/` |" not in PAGE]
    inner = {folder for folder in folders if len(folder.parts) > 1}
    assert not [str(folder) for folder in sorted(inner) if f"`{folder}/`" not in PAGE]


def test_the_tables_of_changes_name_most_modules() -> None:
    tables = PAGE.partition("## I want to change")[2].partition("\n## ")[0]
    assert tables.count("\n| ") > LEAST_CHANGES
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    named = [path for path in modules if f"`{path.relative_to(PACKAGE)}`" in tables]
    assert len(named) > len(modules) / 3


def test_the_list_of_modules_is_what_their_docstrings_say() -> None:
    assert written() == PAGE, "run `make format`, which writes it"


def test_no_folder_and_no_module_is_too_large() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        name = str(folder.relative_to(PACKAGE))
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 15, f"{name} has {len(modules)} modules"
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().count("\n")
        assert lines <= 350, f"{path.relative_to(ROOT)} has {lines} lines"
