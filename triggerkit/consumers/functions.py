"""Functions that a consumer names: filters and transforms, stored as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import psycopg

from triggerkit.errors import ConfigurationError


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


def load_function(reference: str) -> Callable[[Any], Any]:
    """Return the function behind `module:function`; the project's folder must be importable.

    Raises:
        ConfigurationError: there is no such function.
    """
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise ConfigurationError(
            f"{reference}: cannot be loaded ({type(error).__name__}: {error}); "
            "write it as module:function, of a module in the project's folder"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{reference} is not a function")
    return found  # type: ignore[no-any-return]


async def any_functions(state: psycopg.AsyncConnection) -> bool:
    """Return whether a consumer has a filter or a transform that is a function."""
    cursor = await state.execute(
        "SELECT EXISTS (SELECT FROM triggerkit.consumers WHERE definition ->> 'filter' IS NOT NULL "
        "OR definition ->> 'transform' IS NOT NULL)"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
