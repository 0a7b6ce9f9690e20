"""A page asks Postgres few times, however much is on it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import RunState, new_run
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.test_plans import paths

#: Statements of one page. What a search through the source and the log costs is counted apart.
MOST = 8
MOST_OF_A_SEARCH = 12

#: Whose statements are a page's.
PAGES = ("triggerkit dashboard", "triggerkit status", "triggerkit api", "triggerkit why")

#: What sets something for a transaction, or asks whether a connection is still one.
NO_QUERY = re.compile(r"\s*(SET\b|$)")


def test_no_page_asks_postgres_more_than_eight_times(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: Counter[str] = Counter()
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, query: Any, *given: Any, **options: Any) -> Any:
        name = self.connection.info.get_parameters().get("application_name")
        text = query if isinstance(query, str) else bytes(query).decode() if isinstance(
            query, bytes) else query.as_string(None)  # fmt: skip
        if name in PAGES and not NO_QUERY.match(text):
            sent[text] += 1
        return await execute(self, query, *given, **options)

    with followed(state) as visitor:
        # Of what waits pages say why.
        [waiting] = state.accept(new_run(task="elsewhere"))
        visited = [*paths(visitor), f"/runs/{waiting.id}", "/tasks/elsewhere"]
        # The first visit opens connections.
        visitor.get("/")
        monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)
        for path in visited:
            sent.clear()
            seen = visitor.request("GET", f"/dashboard{path}")
            assert seen.status == 200, (path, seen.text)
            most = MOST_OF_A_SEARCH if path.startswith("/why?") else MOST
            asked = "\n".join(f"{count} × {text}" for text, count in sent.items())
            assert sent.total() <= most, f"{path} asks {sent.total()} times:\n{asked}"
    assert len(visited) > 60
