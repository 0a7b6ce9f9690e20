"""What mypy says to a user's code: payloads and options are checked, results have their types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

from tests import ROOT

CODE = """
from datetime import timedelta
from pydantic import BaseModel
from triggerkit import Change, Debounce, Queue, Retry, Task, task

class Order(BaseModel):
    number: int

@task
def ship(order: Order) -> int:
    return order.number

@task(queue=Queue("mail", rate="5/s"), retry=Retry(max_attempts=2), max_duration=timedelta(hours=1))
async def mail(order: Order) -> str:
    return ""

@task
def clean() -> None: ...

@task(batch_size=10)
def index(batch: list[Change[Order]]) -> None: ...

order = Order(number=1)
ship.trigger(order)
ship.trigger(order, delay=timedelta(1), tags=["a"], debounce=Debounce("k", 1))
ship.trigger_many([order, order], priority=5)
clean.trigger()
clean.trigger_and_wait(timeout=5)
reveal_type(ship)
reveal_type(ship(order))
pending = reveal_type(mail(order))
reveal_type(ship.trigger(order))
ship.trigger("wrong")  # wrong payload
ship.trigger()  # no payload
ship.trigger_many(["wrong"])  # wrong payloads
ship.trigger(order, dealy=5)  # unknown option
ship.trigger(order, delay="soon")  # wrong option
ship.trigger_and_wait("wrong")  # wrong payload
clean.trigger(order)  # none is taken
ship("wrong")  # wrong argument
task(quue="x")  # unknown option
task(queue=5)  # wrong option

async def later() -> None:
    await mail.atrigger(order, ttl=5)
    await mail.atrigger("wrong")  # wrong payload
    await mail.atrigger_many([5])  # wrong payloads
    await ship.atrigger_and_wait(5)  # wrong payload
"""


@pytest.mark.timeout(300)
def test_mypy_checks_payloads_and_options(tmp_path: Path) -> None:
    file = tmp_path / "using.py"
    file.write_text(CODE)
    root = ROOT
    options = [
        f"--config-file={root / 'pyproject.toml'}",
        f"--cache-dir={root / '.mypy_cache'}",
        "--no-error-summary",
    ]
    said, errors, _ = api.run([*options, str(file)])
    assert errors == ""
    found = re.findall(r"using\.py:(\d+): (\w+): (.*)", said)
    revealed = [text for _, kind, text in found if text.startswith("Revealed type")]
    assert [re.sub(r"builtins\.|using\.|triggerkit\.[a-z.]+", "", text) for text in revealed] == [
        'Revealed type is "Task[Order, [], int, int]"',
        'Revealed type is "int"',
        'Revealed type is "typing.Coroutine[Any, Any, str]"',
        'Revealed type is "Handle[int]"',
    ]
    lines = CODE.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "  # " in line}
    assert {int(number) for number, kind, _ in found if kind == "error"} == wrong
