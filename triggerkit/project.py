"""The project in a folder: what `triggerkit.toml` says."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from triggerkit.errors import ConfigurationError, suggested
from triggerkit.textfile import read_text

#: The modules of the projects that this process may import.
_own: set[str] = set()


def is_own_module(name: str) -> bool:
    """Return whether a module is the project's, or within one that is."""
    return any(name == own or name.startswith(f"{own}.") for own in _own)


def own_modules() -> list[str]:
    """Return the modules that are the project's, for a process that is to know them too."""
    return sorted(_own)


def call_own(modules: Iterable[str]) -> None:
    """Take `modules` for the project's, as another process does."""
    _own.update(modules)


@dataclass(frozen=True, slots=True)
class Project:
    """The project, as `triggerkit.toml` has it: where the app and the tasks are found.

    `setup` is a module that `dev` runs (`python -m`) on a database of its own, before it captures.
    `functions` are modules whose functions consumers may name as filters and transforms, beside
    those of `tasks` and `app`.
    `consumers`, `endpoints` and `events` are the file's tables of these names, as they were
    written.
    """

    folder: Path
    app: str | None = None
    tasks: tuple[str, ...] = ("tasks",)
    setup: str | None = None
    functions: tuple[str, ...] = ()
    consumers: Mapping[str, Any] = field(default_factory=dict)
    endpoints: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)

    def make_importable(self) -> None:
        """Let this process import the project's modules, and consumers name functions of them."""
        app = () if self.app is None else (self.app.partition(":")[0],)
        _own.update(self.tasks, self.functions, app)
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))

    @classmethod
    def load(
        cls, folder: Path | None = None, app: str | None = None, tasks: list[str] | None = None
    ) -> Self:
        """Read `triggerkit.toml` in `folder`; `app` and `tasks`, when given, win over the file.

        Raises:
            ConfigurationError: the file is not TOML, or has unknown or mistyped keys.
        """
        folder = (folder or Path.cwd()).resolve()
        path = folder / "triggerkit.toml"
        values: dict[str, Any] = {}
        if path.exists():
            try:
                values = tomllib.loads(read_text(path))
            except tomllib.TOMLDecodeError as error:
                raise ConfigurationError(f"{path.name}: {error}") from None
        known = {"app", "tasks", "setup", "functions", "consumers", "endpoints", "events"}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise ConfigurationError(
                f"{path.name}: unknown key {unknown[0]!r}{suggested(unknown[0], known) or ';'} "
                f"known are {', '.join(sorted(known))}"
            )
        found_tasks = _modules(path, values, "tasks", ["tasks"])
        functions = _modules(path, values, "functions", [])
        found_app = values.get("app")
        setup = values.get("setup")
        if not (isinstance(found_app, str | None) and isinstance(setup, str | None)):
            raise ConfigurationError(
                f'{path.name}: app must be a name like "app.main:app", setup a module\'s name'
            )
        return cls(
            folder,
            app or found_app,
            tuple(tasks or found_tasks),
            setup,
            tuple(functions),
            _tables(path, values, "consumers"),
            _tables(path, values, "endpoints"),
            _table(path, values, "events"),
        )


def _modules(path: Path, values: dict[str, Any], name: str, default: list[str]) -> list[str]:
    found = values.get(name, default)
    if not (isinstance(found, list) and all(isinstance(module, str) for module in found)):
        raise ConfigurationError(f"{path.name}: {name} must be a list of module names")
    return found


def _tables(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ConfigurationError(f"{path.name}: {name} must be tables, each [{name}.NAME]")
    return found


def _table(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path.name}: {name} must be a table, [{name}]")
    return found
