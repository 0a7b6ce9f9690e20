"""Runs that have too much for a page: what is newest is shown, and how much is not."""

from __future__ import annotations

import re

import orjson
import pytest

from tests.integration.run_state import RunState, new_run
from tests.integration.web.dashboard.visitor import Visitor

_ATTEMPTS = """
INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker, error)
SELECT %s, n, 'failed', now(), now(), 'w', %s FROM generate_series(1, 1000) n
"""

_SAID = """
INSERT INTO triggerkit.spans (run_id, attempt, kind, name, level, attributes, started_at)
SELECT %s, 1, %s, %s || n, 'INFO', '{}', now() FROM generate_series(1, %s) n
"""


def test_of_a_thousand_attempts_the_last_errors_are_shown(
    state: RunState, visitor: Visitor
) -> None:
    [ref] = state.accept(new_run())
    error = {"type": "Refused", "message": "x" * 3000, "traceback": "at\n" * 20_000}
    state.connection.execute(_ATTEMPTS, [ref.id, orjson.dumps(error).decode()])
    page = visitor.get(f"/runs/{ref.id}")
    assert re.findall(r"Attempt (\d+): Refused", page.text)[:2] == ["1000", "999"]
    assert "990 earlier attempts that failed are left out" in page.text
    assert len(page.html) < 400_000


def test_of_ten_thousand_lines_the_last_are_shown_and_no_span_is_lost(
    state: RunState, visitor: Visitor
) -> None:
    [ref] = state.accept(new_run())
    with state.claims() as claims:
        claims.claim([ref.id])
    state.connection.execute(_SAID, [ref.id, "span", "early span ", 1])
    state.connection.execute(_SAID, [ref.id, "log", "line ", 10_000])
    state.connection.execute(_SAID, [ref.id, "span", "late span ", 1])
    page = visitor.get(f"/runs/{ref.id}")
    lines = [int(number) for number in re.findall(r">line (\d+)<", page.html)]
    assert lines == list(range(9_001, 10_001))
    assert "More than 3,998 earlier lines are left out" in page.text
    assert "early span 1" in page.text
    assert "late span 1" in page.text


@pytest.mark.parametrize("kind", ["log", "span"])
def test_long_lines_and_names_are_cut(state: RunState, visitor: Visitor, kind: str) -> None:
    [ref] = state.accept(new_run())
    with state.claims() as claims:
        claims.claim([ref.id])
    state.connection.execute(_SAID, [ref.id, kind, "y" * 20_000, 1000])
    page = visitor.get(f"/runs/{ref.id}")
    assert len(page.html) < 500_000
    assert ("900 earlier lines are left out" in page.text) == (kind == "log")


def test_a_list_of_rows_with_long_keys_is_small(state: RunState, visitor: Visitor) -> None:
    source = {"table": "public.posts", "key": f'public.posts:["{"k" * 3000}"]'}
    state.accept(*[new_run(source=source) for _ in range(50)])
    assert len(visitor.get("/runs").html) < 100_000


def test_an_integer_of_thirty_digits_is_shown_as_it_is(state: RunState, visitor: Visitor) -> None:
    digits = "123456789012345678901234567890"
    [ref] = state.accept(new_run(payload=f'{{"a":{digits}}}'.encode()))
    assert digits in visitor.get(f"/runs/{ref.id}").html
    assert digits in visitor.get("/tasks/work").html
    form = {"csrf": visitor.get("/runs").csrf, "payload": f'{{"a": {digits}}}'}
    assert visitor.submit("/tasks/work/start", form).status == 303
    stored = state.rows("SELECT payload FROM triggerkit.runs ORDER BY id")
    assert digits in stored[-1]
