"""Pages that take long: they say so, and hold up nothing but pages."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.serving import Site
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from triggerkit.web.dashboard import site

#: Seconds within which a probe that is not held up answers, also on a busy machine.
SOON_S = 2.0

WAITING = """
SELECT count(*) >= %s FROM pg_stat_activity
WHERE application_name = 'triggerkit dashboard' AND wait_event_type = 'Lock'
"""


def test_probes_the_api_and_triggers_answer_while_every_page_waits(
    state: RunState, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "PAGE_S", 8.0)
    others = Site(visitor.port)
    key = {"authorization": f"Bearer {KEY}"}
    with (
        psycopg.connect(state.settings.state_dsn) as holder,
        ThreadPoolExecutor(2 * site.POOL_SIZE) as readers,
    ):
        holder.execute("LOCK TABLE triggerkit.run_rollups")
        pages = [
            readers.submit(visitor.request, "GET", "/dashboard/tasks")
            for _ in range(2 * site.POOL_SIZE)
        ]
        state.wait_for(lambda: state.rows(WAITING, site.POOL_SIZE)[0])
        for method, path, body, status in (
            ("GET", "/healthz", None, 200),
            ("GET", "/readyz", None, 200),
            ("GET", "/api/v1/queues", None, 200),
            ("POST", "/api/v1/tasks/work/trigger", b'{"payload": {"n": 1}}', 200),
        ):
            started = time.monotonic()
            given = {"content-type": "application/json", **key}
            assert others.request(method, path, body, given).status == status, path
            assert time.monotonic() - started < SOON_S, path
        seen = [page.result(30) for page in pages]
    assert {page.status for page in seen} == {503}
    assert all(page.headers["retry-after"] for page in seen)
    texts = [page.text for page in seen]
    assert sum("was given up" in text for text in texts) >= site.POOL_SIZE, texts
    assert sum("busy with other pages" in text for text in texts) >= 1, texts
    assert not any("does not answer" in text for text in texts), texts
    # Nothing of it is left.
    assert visitor.get("/tasks").status == 200


def test_a_statement_that_takes_too_long_is_said(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "STATEMENT_S", 0.5)
    with dashboard(state.settings) as visitor, psycopg.connect(state.settings.state_dsn) as holder:
        visitor.log_in()
        holder.execute("LOCK TABLE triggerkit.run_rollups")
        started = time.monotonic()
        page = visitor.get("/tasks", 503)
    assert "was given up" in page.text
    assert time.monotonic() - started < site.PAGE_S / 2
