"""What can be a task: whatever can be called is executed to its end, or refused with the reason."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from triggerkit import task
from triggerkit.errors import ConfigurationError
from triggerkit.testing import run_task


class Order(BaseModel):
    """A payload."""

    number: int


async def doubled(order: Order) -> int:
    """Return the number twice."""
    await asyncio.sleep(0)
    return order.number * 2


def added(more: int, order: Order) -> int:
    """Return the number and more."""
    return order.number + more


async def aadded(more: int, order: Order) -> int:
    """Return the number and more, later."""
    return order.number + more


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap without calling an async function to its end: the caller gets the coroutine."""

    @functools.wraps(function)
    def wrapper(*given: Any) -> Any:
        return function(*given)

    return wrapper


def run_inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an async function as a sync one."""

    @functools.wraps(function)
    def wrapper(*given: Any) -> Any:
        return asyncio.run(function(*given))

    return wrapper


def made_async(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a sync function as an async one."""

    @functools.wraps(function)
    async def wrapper(*given: Any) -> Any:
        await asyncio.sleep(0)
        return function(*given)

    return wrapper


def tripled(order: Order) -> int:
    """Return the number three times."""
    return order.number * 3


class Multiplier:
    """An object that can be called, and has a method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, order: Order) -> int:
        """Multiply."""
        return order.number * self.factor

    async def later(self, order: Order) -> int:
        """Multiply, later."""
        return order.number * self.factor


class AsyncMultiplier(Multiplier):
    """An object whose call is a coroutine."""

    async def __call__(self, order: Order) -> int:  # type: ignore[override]
        """Multiply, later."""
        return order.number * self.factor


class Awaited:
    """What can be awaited, and is no coroutine."""

    def __await__(self) -> Any:
        return asyncio.sleep(0, 8).__await__()


def awaited(order: Order) -> Any:
    """Return what can be awaited."""
    return Awaited()


@pytest.mark.parametrize(
    ("function", "name", "is_async", "output"),
    [
        (functools.partial(added, 4), "added", False, 8),
        (functools.partial(functools.partial(aadded, 4)), "aadded", True, 8),
        (passed_on(doubled), "doubled", False, 8),
        (run_inside(doubled), "doubled", False, 8),
        (made_async(tripled), "tripled", True, 12),
        (Multiplier(2), "Multiplier", False, 8),
        (AsyncMultiplier(2), "AsyncMultiplier", True, 8),
        (Multiplier(2).later, "later", True, 8),
        (awaited, "awaited", False, 8),
    ],
)
def test_whatever_can_be_called_is_executed_to_its_end(
    function: Any, name: str, is_async: bool, output: int
) -> None:
    made = task(name=f"{name}_task")(function)
    assert made.is_async is is_async
    assert made.payload_type.read(b'{"number": 4}') == Order(number=4)
    run = run_task(made, Order(number=4))
    assert (run.status, run.output) == ("completed", output)
    assert made.place.startswith(__file__) or "asyncio" in made.place
    assert task(function).name == name


def yielding(order: Order) -> Iterator[int]:
    """Yield."""
    yield order.number


async def ayielding(order: Order) -> AsyncIterator[int]:
    """Yield, later."""
    yield order.number


class Yielding:
    """An object whose call yields."""

    def __call__(self, order: Order) -> Iterator[int]:
        """Yield."""
        yield order.number


@pytest.mark.parametrize("function", [yielding, ayielding, Yielding(), functools.partial(yielding)])
def test_a_generator_is_refused_with_the_reason(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="is a generator"):
        task(function)


def test_a_class_is_refused() -> None:
    kind: Any = Order
    with pytest.raises(ConfigurationError, match="Order is a class"):
        task(kind)


def test_a_run_that_returns_a_generator_fails() -> None:
    run = run_task(task(name="returns_generator")(passed_on(yielding)), Order(number=1), attempt=3)
    assert run.status == "failed"
    assert run.error is not None
    assert "whose body has not run" in run.error.message
