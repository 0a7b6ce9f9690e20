"""Examine a task's function: a plain one, a method, a partial or an object that can be called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

from triggerkit.errors import ConfigurationError


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of `function`, or of the class of an object that can be called."""
    function = _unbound(function)
    return str(getattr(function, "__name__", type(function).__name__))


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether a call of `function` makes a coroutine. What it wraps does not count: a sync
    wrapper of an async function may have run it already."""
    return inspect.iscoroutinefunction(called(function))


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose code runs first, and which has the annotations."""
    function = _unbound(function)
    is_function = inspect.isroutine(function) or inspect.isclass(function)
    return function if is_function else type(function).__call__


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code of the user's function; None of one that is built in."""
    code: CodeType | None = getattr(inspect.unwrap(called(function)), "__code__", None)
    return code


def place_of(function: Callable[..., Any]) -> tuple[str, int]:
    """Return where the user's function stands: its file and line."""
    code = code_of(function)
    return ("<built-in>", 0) if code is None else (code.co_filename, code.co_firstlineno)


def check(function: Callable[..., Any]) -> None:
    """Refuse what cannot be executed as a task.

    Raises:
        ConfigurationError: it is a class, or a generator.
    """
    if not callable(function):
        raise ConfigurationError(f"@task needs a function, not a {type(function).__name__}")
    if inspect.isclass(function):
        raise ConfigurationError(
            f"{name_of(function)} is a class: declare a method of an instance as the task"
        )
    run = called(function)
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise ConfigurationError(
            f"task {name_of(function)} is a generator (it has a yield): nothing would run its "
            "body; return a value instead, such as a list of what it yields"
        )


def check_result(result: object) -> None:
    """Refuse a result whose code has not run.

    Raises:
        TypeError: it is a generator.
    """
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            "the function returned a generator, whose body has not run; return a value instead, "
            "such as a list of what it yields"
        )


def _unbound(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function
