"""Tasks, triggers, handles, hooks and results as type checkers see them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from triggerkit import (
    AbortRun,
    BatchResult,
    Change,
    Debounce,
    Handle,
    Item,
    ItemFailure,
    Queue,
    Retry,
    Run,
    RunContext,
    rows,
    task,
)


class Order(BaseModel):
    """A payload."""

    number: int


class Receipt(BaseModel):
    """An output."""

    total: float


@task
def pay(order: Order) -> Receipt:
    """Pay."""
    return Receipt(total=order.number)


@task(retry=Retry(max_attempts=2), queue=Queue("slow", concurrency=2), concurrency_per_key=3)
async def pay_later(order: Order) -> int:
    """Pay, later."""
    return order.number


@task
def tidy() -> None:
    """Tidy."""


@task(on=rows("public.orders"), batch_size=100)
async def index(batch: list[Change[Order]]) -> BatchResult:
    """Index."""
    failed = [ItemFailure(change, ValueError("no")) for change in batch]
    return BatchResult("done", failed)


@pay.on_start
def started(run: RunContext) -> None:
    """Hear of a start."""


@pay.on_success
async def succeeded(run: RunContext, output: Any) -> None:
    """Hear of an output."""


@pay_later.on_error
def decide(run: RunContext, error: BaseException) -> AbortRun | None:
    """Decide."""
    return AbortRun() if run.attempt > 1 else None


def sync_callers() -> None:
    """Call, trigger, wait."""
    assert_type(pay(Order(number=1)), Receipt)
    handle = pay.trigger(Order(number=1), delay=timedelta(minutes=1), queue="slow", max_attempts=4)
    assert_type(handle, Handle[Receipt])
    assert_type(handle.result(timeout=5), Receipt)
    assert_type(pay.trigger_and_wait(Order(number=1)), Receipt)
    assert_type(pay_later.trigger_and_wait(Order(number=1), timeout=5), int)
    assert_type(pay_later.trigger(Order(number=1)), Handle[int])
    assert_type(tidy.trigger(), Handle[None])
    many = pay.trigger_many([Order(number=1), Item(Order(number=2), priority=5)])
    assert_type(many, list[Handle[Receipt]])
    pay.trigger(Order(number=1), debounce=Debounce("key", 5))
    run = Run.get(handle.id)
    assert_type(run.handle.cancel(), bool)
    assert_type(Run.list(task="pay", status=["failed"]), list[Run])


async def async_callers() -> None:
    """Do the same, awaited."""
    assert_type(await pay_later(Order(number=1)), int)
    handle = await pay_later.atrigger(Order(number=1))
    assert_type(handle, Handle[int])
    assert_type(await handle.aresult(), int)
    assert_type(await pay.atrigger_and_wait(Order(number=1)), Receipt)
    assert_type(await tidy.atrigger(), Handle[None])
    assert_type(await Run.alist(limit=5), list[Run])


def wrong() -> None:
    """Misuse, each of which both checkers have to refuse."""
    pay.trigger("no order")  # type: ignore[arg-type] # pyright: ignore
    pay.trigger(Order(number=1), colour=1)  # type: ignore[call-arg] # pyright: ignore
    pay.on_start(decide)  # type: ignore[type-var] # pyright: ignore
