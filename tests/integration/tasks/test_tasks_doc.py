"""docs/tasks.md: every example is executed, and does what the text says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from tests import ROOT
from tests.integration.run_state import RunState
from tests.integration.runs.test_declared_runs import apply
from tests.integration.worker.test_journal import saying
from triggerkit.state.channels import KEEPER
from triggerkit.tasks.declare import declared

PAGE = ROOT / "docs" / "tasks.md"

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sections() -> dict[str, list[str]]:
    """The python blocks of each section that has some: the first declares, others trigger."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        title: BLOCK.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: blocks for title, blocks in found.items() if blocks}


class Section:
    """A section's module, and the runs that it made."""

    def __init__(self, state: RunState, module: ModuleType) -> None:
        self.state = state
        self.module = module

    def outputs(self, *handles: Any) -> list[Any]:
        """What runs returned, once they are completed."""
        rows = self.state.wait_for_status("completed", *(handle.id for handle in handles))
        return [orjson.loads(row["output"]) for row in rows]

    def ended(self, status: str, handle: Any) -> dict[str, Any]:
        """The row of a run, once it has the status."""
        return self.state.wait_for_status(status, handle.id)[0]


def a_task(s: Section) -> None:
    assert s.outputs(s.module.handle) == ["hello Ada"]
    assert s.module.agreet.name == "greet_later"


def payloads(s: Section) -> None:
    assert s.outputs(*s.module.handles) == [7, 3, "Ada", None]


def trigger(s: Section) -> None:
    s.state.wait_for(lambda: set(s.state.statuses()) == {"completed"}, 60)
    assert len(s.state.statuses()) == 1 + 1500 + 3 + 2
    assert s.outputs(s.module.one, s.module.many[-1]) == [2, 2998]
    assert s.outputs(*s.module.mixed) == [2, 4]


def wait_for_the_output(s: Section) -> None:
    assert s.module.total == 0 + 1 + 4 + 9


def waits_and_deploys(s: Section) -> None:
    assert s.module.pages == ["page 0", "page 1"]
    keys = "SELECT idempotency_key FROM triggerkit.runs WHERE parent_id IS NOT NULL ORDER BY seq"
    assert [key.partition("/")[2] for key in s.state.rows(keys)] == ["page 0", "page 1"]


def handles_and_runs(s: Section) -> None:
    assert s.module.text == "report of month 1"
    assert s.module.run.status == "completed"
    assert [run.id for run in s.module.newest] == [s.module.unwanted.id, s.module.handle.id]


def in_a_transaction(s: Section) -> None:
    assert s.outputs(s.module.receipt) == [7]
    assert s.state.rows("SELECT id FROM public.orders") == [7]
    assert s.state.statuses() == ["completed"]


def delay_and_ttl(s: Section) -> None:
    assert s.outputs(s.module.soon) == ["Ada"]
    for handle in (s.module.next_week, s.module.at_noon, s.module.punctual):
        assert s.state.run(handle.id)["status"] == "delayed"
    [lasts] = s.state.rows(
        "SELECT extract(epoch FROM expires_at - scheduled_at)::int FROM triggerkit.runs "
        "WHERE id = %s",
        s.module.punctual.id,
    )
    assert lasts == 60


def idempotency_keys(s: Section) -> None:
    assert (s.module.again.id, s.module.again.duplicate) == (s.module.first.id, True)
    assert not s.module.anew.duplicate
    s.state.wait_for(lambda: s.state.statuses() == ["completed"] * 4)


def debounce(s: Section) -> None:
    assert s.outputs(s.module.edited) == [3]
    assert s.state.statuses() == ["completed"]


def concurrency_keys(s: Section) -> None:
    s.outputs(*s.module.entries)
    assert s.module.seen == list(range(5))


def several_of_a_key(s: Section) -> None:
    assert s.outputs(*s.module.calls) == list(range(9))
    assert set(s.state.rows("SELECT concurrency_per_key FROM triggerkit.runs")) == {3}


def priority(s: Section) -> None:
    s.outputs(s.module.usual, s.module.urgent)
    ranks = [s.state.run(handle.id)["rank"] for handle in (s.module.urgent, s.module.usual)]
    assert 59e6 < ranks[1] - ranks[0] < 61e6


def tags_and_metadata(s: Section) -> None:
    row = s.ended("completed", s.module.imported)
    assert row["tags"] == ["import", "imported"]
    assert row["metadata"] == {"file": "a.csv", "done": 3}


def retries(s: Section) -> None:
    flaky, closed, busy, legacy = s.module.handles
    assert s.outputs(flaky, busy) == [3, 2]
    assert s.ended("failed", closed)["attempt"] == 1
    assert s.ended("failed", legacy)["attempt"] == 1


def limits(s: Section) -> None:
    assert s.outputs(*s.module.asked) == list(range(10))
    assert s.state.rows("SELECT name, concurrency, rate_limit FROM triggerkit.queues") == [
        ("calls", 2, 20)
    ]


def longest_time(s: Section) -> None:
    for handle in s.module.handles:
        s.ended("timed_out", handle)


def schedules(s: Section) -> None:
    names = "SELECT name, timezone, catch_up FROM triggerkit.schedules ORDER BY name"
    assert s.state.rows(names) == [("hourly", "UTC", True), ("report", "Europe/Berlin", False)]
    due = "UPDATE triggerkit.schedules SET next_at = date_trunc('minute', now()) - '1s'::interval"
    s.state.connection.execute(f"{due} WHERE name = 'hourly'")
    s.state.connection.execute(f"SELECT pg_notify('{KEEPER}', '')")
    s.state.wait_for(lambda: "completed" in s.state.statuses())


def hooks(s: Section) -> None:
    works, fails = s.module.handles
    s.ended("completed", works)
    s.ended("failed", fails)
    assert sorted(s.module.heard) == ["failure: no luck", "start", "start", "success: done"]


def logs_and_spans(s: Section) -> None:
    s.ended("completed", s.module.fetched)
    said = "SELECT kind, level, name, attributes FROM triggerkit.spans ORDER BY id"
    s.state.wait_for(lambda: len(s.state.rows(said)) == 4)
    assert s.state.rows(said) == [
        ("log", "stdout", "fetching", {}),
        ("log", "warning", "no price of a book", {"logger": "shop"}),
        ("span", None, "parse", {}),
        ("span", None, "fetch", {"url": "http://127.0.0.1/", "bytes": 1234}),
    ]


def use_the_database(s: Section) -> None:
    try:
        assert s.outputs(*s.module.told) == [1, 1, 1]
    finally:
        s.module.pool().close()


def prepare(s: Section) -> None:
    assert s.outputs(*s.module.uses) == [1, 1, 1]


CHECKS: list[Callable[[Section], None]] = [
    a_task, payloads, trigger, wait_for_the_output, waits_and_deploys, handles_and_runs,
    in_a_transaction, delay_and_ttl, idempotency_keys, debounce, concurrency_keys,
    several_of_a_key, priority, tags_and_metadata, retries, limits, longest_time, schedules,
    hooks, logs_and_spans, prepare, use_the_database,
]  # fmt: skip


def titled(check: Callable[[Section], None]) -> str:
    return check.__name__.replace("_", " ").capitalize()


def test_every_section_with_an_example_is_checked() -> None:
    assert [titled(check) for check in CHECKS] == list(sections())


@pytest.mark.parametrize("check", CHECKS, ids=titled)
def test_the_example_does_what_the_text_says(
    check: Callable[[Section], None],
    triggers: RunState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    declaring, *triggering = sections()[titled(check)]
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    declared.clear()
    execute(module, tmp_path / "declaring.py", declaring)
    tasks = list(declared.values())
    apply(triggers, *tasks)
    with saying(triggers, *tasks):
        for number, code in enumerate(triggering):
            execute(module, tmp_path / f"triggering_{number}.py", code)
        check(Section(triggers, module))


def execute(module: ModuleType, path: Path, code: str) -> None:
    """Execute `code` as the next part of `module`."""
    path.write_text(code)
    exec(compile(code, str(path), "exec"), module.__dict__)
