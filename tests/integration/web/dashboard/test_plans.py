"""No page reads a large table through, however few rows it has now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.visitor import Visitor
from triggerkit.runs.session import by_index
from triggerkit.web.dashboard.pages import errors, messages, runs, trace
from triggerkit.web.dashboard.render import NAVIGATION

#: The tables that grow. The log is in one table for each range of positions.
LARGE = re.compile(
    r"runs|attempts|spans|deliveries|parked|run_rollups|lag_minutes|log_minutes|audit|events.*"
)

#: A value of each qualifier of which an example finds nothing.
VALUES = {
    "table": "items",
    "key": "1",
    "consumer": "tell",
    "task": "tell",
    "queue": "default",
    "batch": "run_1",
}

Asked = dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is asked of Postgres by pages, with the parameters of the last time."""
    found: Asked = {}
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, query: Any, params: Any = None, **given: Any) -> Any:
        if self.connection.info.get_parameters().get("application_name") == "triggerkit dashboard":
            text = query if isinstance(query, str) else query.as_string(None) if hasattr(
                query, "as_string") else query.decode()  # fmt: skip
            found[text] = params
        return await execute(self, query, params, **given)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)
    return found


def test_no_page_reads_a_large_table_through(state: RunState, asked: Asked) -> None:
    with followed(state) as visitor:
        for path in paths(visitor):
            seen = visitor.request("GET", f"/dashboard{path}")
            assert seen.status == 200, (path, seen.text)
    selects = {q: given for q, given in asked.items() if re.match(r"\s*(\(?SELECT|WITH)\b", q)}
    assert len(selects) > 60
    with psycopg.connect(by_index(state.settings.state_dsn), autocommit=True) as connection:
        for query, given in selects.items():
            row = connection.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), given).fetchone()
            assert row is not None
            for node in nodes(row[0][0]["Plan"]):
                if node["Node Type"] == "Seq Scan":
                    assert not LARGE.fullmatch(node["Relation Name"]), query


def paths(visitor: Visitor, given: dict[str, str] = VALUES) -> Iterator[str]:
    """Every page of the navigation, with every filter, and one of each kind below it."""
    yield from (f"/{path}" for path, _ in NAVIGATION)
    for name, page in (
        ("runs", runs),
        ("trace", trace),
        ("errors", errors),
        ("messages", messages),
    ):
        for one in page.QUALIFIERS:
            if one.name == "database":
                continue
            table = f"table:{given['table']}+" if one.name == "key" else ""
            for value in one.values or [given.get(one.name, one.example)]:
                yield f"/{name}?filter={table}{one.name}:{quote(value)}"
    below = r"/dashboard(/(?:runs/run_|trace/\d|tasks/|consumers/|endpoints/|databases/)[^?]+)$"
    for path in ("/runs", "/trace", "/tasks", "/consumers", "/endpoints", "/databases"):
        links = visitor.get(path).links
        yield from {found[1] for to in links if (found := re.match(below, to))}
    yield from ("/?window=24h", f"/why?q=public.{given['table']}+1")


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan and those below it."""
    yield node
    for child in node.get("Plans", []):
        yield from nodes(child)
