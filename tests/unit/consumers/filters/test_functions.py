"""Functions that a consumer names: of the project's own modules alone."""

from __future__ import annotations

import functools
import os
import subprocess as program
from pathlib import Path
from sys import exit as leave

import pytest

from triggerkit.consumers.filters.functions import load_function
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project

FOREIGN = (os, program, leave)

partial = functools.partial(print, "row")


def wanted(change: object) -> bool:
    return True


@functools.lru_cache
def remembered(change: object) -> bool:
    return True


class Wanted:
    def __call__(self, change: object) -> bool:
        return True

    @staticmethod
    def by_class(change: object) -> bool:
        return True


instance = Wanted()


@pytest.mark.parametrize("name", ["wanted", "remembered", "instance", "Wanted.by_class"])
def test_what_the_project_defines_is_loaded(name: str) -> None:
    assert load_function(f"{__name__}:{name}")(None) is True


@pytest.mark.parametrize("reference", ["sys:exit", "os:abort", "builtins:eval", "subprocess:run"])
def test_a_module_that_is_not_the_projects_is_refused(reference: str) -> None:
    module = reference.partition(":")[0]
    with pytest.raises(ConfigurationError, match=rf'add functions = \["{module}"\]'):
        load_function(reference)


@pytest.mark.parametrize(
    "path", ["leave", "os.abort", "program.run", "__builtins__.get", "wanted.__call__", "partial"]
)
def test_what_a_module_of_the_project_only_imported_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="not defined in the project's modules"):
        load_function(f"{__name__}:{path}")


def test_a_module_that_exits_as_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting_module.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "triggerkit.toml").write_text('functions = ["exiting_module"]\n')
    monkeypatch.setattr("triggerkit.project._own", set())
    monkeypatch.syspath_prepend(tmp_path)
    Project.load(tmp_path).make_importable()
    with pytest.raises(ConfigurationError, match=r"cannot be loaded \(SystemExit: 3\)"):
        load_function("exiting_module:wanted")


def test_the_projects_modules_are_those_of_tasks_app_and_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "triggerkit.toml").write_text(
        'app = "shop.main:app"\ntasks = ["jobs"]\nfunctions = ["shop.filters"]\n'
    )
    own: set[str] = set()
    monkeypatch.setattr("triggerkit.project._own", own)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    Project.load(tmp_path).make_importable()
    assert own == {"shop.main", "jobs", "shop.filters"}
