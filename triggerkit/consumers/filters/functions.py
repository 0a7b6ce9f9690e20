"""Functions that a consumer names: filters and transforms, stored as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import psycopg

from triggerkit.errors import ConfigurationError, text_of
from triggerkit.project import is_own_module


def reference_to(function: Callable[..., Any], what: str) -> str:
    """`module:function`, by which another process finds it.

    Raises:
        ConfigurationError: it cannot be found so: a lambda, or defined within a function.
    """
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "<lambda>")
    if module in (None, "__main__") or "<" in name:
        raise ConfigurationError(
            f"{what}={name}: another process must find it by its name; define it with `def` at the "
            "top of a module of the project"
        )
    return f"{module}:{name}"


def foreign(reference: str) -> str | None:
    """Return what is wrong with `module:function` when the module is not the project's own."""
    module = reference.partition(":")[0]
    if is_own_module(module):
        return None
    return (
        f"{reference}: {module} is not one of the project's modules, which are those of `tasks` "
        f'and `app`; to have its functions called, add functions = ["{module}"] to triggerkit.toml'
    )


def load_function(reference: str) -> Callable[[Any], Any]:
    """Return the function behind `module:function`; the project's folder must be importable.

    Raises:
        ConfigurationError: there is no such function, or it is not the project's own.
    """
    problem = foreign(reference)
    if problem is not None:
        raise ConfigurationError(problem)
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except BaseException as error:
        # SystemExit, too: nothing that a module does as it is imported ends the stream.
        raise ConfigurationError(
            f"{reference}: cannot be loaded ({type(error).__name__}: {text_of(error)}); "
            "write it as module:function, of a module in the project's folder"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{reference} is not a function")
    if not is_own_module(getattr(found, "__module__", None) or ""):
        raise ConfigurationError(
            f"{reference} is not defined in the project's modules: define it there with `def`"
        )
    return found  # type: ignore[no-any-return]


async def any_code(state: psycopg.AsyncConnection) -> bool:
    """Return whether the stream needs code of the project for a consumer: a filter or a transform
    that is a function, or a task that gets its messages directly."""
    cursor = await state.execute(
        "SELECT EXISTS (SELECT FROM triggerkit.consumers WHERE definition ->> 'filter' IS NOT NULL "
        "OR definition ->> 'transform' IS NOT NULL OR definition ->> 'via' = 'direct')"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
