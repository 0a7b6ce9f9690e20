"""Requests that no page of ours makes: strange hosts, places, names and moments."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.integration.away import away
from tests.integration.run_state import RunState
from tests.integration.serving import serving
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Visitor, application, dashboard, keyed
from tests.integration.worker_thread import Row
from triggerkit import Change, rows, task
from triggerkit.settings import Settings
from triggerkit.supervisor.serve import server_config
from triggerkit.web.throttle import MOST_WRONG

PUBLIC_URL = "https://tasks.example.com/a%20b"

#: Seconds after which pages are shown again, once the database is back.
BACK_S = 3.0


@pytest.mark.parametrize(
    "up", ["/..", "/../x", "/runs/../../x", "/%2e%2E/x", "/.%2e/x", "/..\\x", "/\\..\\x", "/..%2fx"]
)
def test_a_login_does_not_lead_up(settings: Settings, up: str) -> None:
    with dashboard(settings) as visitor:
        entered = visitor.submit("/login", {"key": KEY, "next": up})
        assert entered.headers["location"] == "/dashboard/"
        page = visitor.submit("/login", {"key": KEY, "next": "/runs?filter=error:../x"})
        assert page.headers["location"] == "/dashboard/runs?filter=error:../x"


def test_a_host_is_a_host_and_a_port_and_nothing_else(visitor: Visitor) -> None:
    port = visitor.port
    for host in (f"127.0.0.1:{port}", "127.0.0.1", "[::1]", "[::1]:80", "[fe80::1%25eth0]:80"):
        assert visitor.get("/runs", host=host).status == 200
    for host in (
        f"127.0.0.1:{port}@evil.example",
        "127.0.0.1:x",
        "127.0.0.1/x",
        "127.0.0.1 evil.example",
        "127.0.0.1?x",
        "evil.example:127.0.0.1",
        "[::1]x",
        "0x7f000001",
        "x@127.0.0.1",
    ):
        visitor.get("/runs", 421, host=host)


@pytest.mark.parametrize("name", ["a%20b", "%3Cb%3E", "-", "x" * 81, "1"])
def test_only_what_can_be_a_queues_name_is_paused(
    state: RunState, visitor: Visitor, name: str
) -> None:
    refused = visitor.act(f"/queues/{name}/pause")
    assert (refused.status, "letters, digits" in refused.text) == (422, True)
    assert state.rows("SELECT count(*) FROM triggerkit.queues") == [0]


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59-14:00"]
)
def test_a_replay_begins_at_any_moment(state: RunState, visitor: Visitor, moment: str) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    form = {"csrf": visitor.get("/runs").csrf, "from": moment}
    assert visitor.submit("/consumers/posts_push_consumer/replay", form).status == 303


def test_pages_say_that_the_database_is_away_before_a_reader_gives_up(
    state: RunState, visitor: Visitor
) -> None:
    token = visitor.get("/").csrf
    with away(state.settings.state_dsn):
        for _ in range(2):
            assert "does not answer" in visitor.get("/", 503).text
        paused = visitor.submit("/queues/default/pause", {"csrf": token})
        assert (paused.status, "does not answer" in paused.text) == (503, True)
    # However long the database was away.
    state.wait_for(lambda: visitor.request("GET", "/dashboard/").status == 200, BACK_S)


@pytest.mark.parametrize("cut_off", [True, False])
def test_behind_a_proxy_all_links_have_the_path_of_the_public_url(
    state: RunState, cut_off: bool
) -> None:
    base = "/a%20b/dashboard"
    host = "tasks.example.com"
    with dashboard(state.settings, TRIGGERKIT_PUBLIC_URL=PUBLIC_URL) as behind:
        sent = "/dashboard" if cut_off else base
        login = behind.request("GET", f"{sent}/login", host=host)
        assert login.status == 200
        assert all(to.startswith(f"{base}/") for to in login.links)
        form = f"key={KEY}&next=%2Fruns"
        entered = behind.request("POST", f"{sent}/login", form, host=host, origin=f"https://{host}")
        assert entered.headers["location"] == f"{base}/runs"
        assert f"path={base}" in behind.set_cookie.lower()
        for path in ("/", "/runs", "/queues"):
            page = behind.request("GET", f"{sent}{path}", host=host)
            assert page.status == 200
            assert page.html.count('aria-current="page"') == 1
            assert f'data-live="{base}/live"' in page.html
            assert not [to for to in page.links if not to.startswith((f"{base}/", "#"))]
        bare = behind.request("GET", sent, host=host)
        assert bare.headers["location"] == f"{base}/"
        # What asks without the proxy, such as a probe, is answered as ever.
        assert behind.request("GET", "/healthz").status == 200


def test_another_projects_login_on_the_same_host_ends_none_here(settings: Settings) -> None:
    with dashboard(settings) as here, dashboard(settings) as replica:
        here.log_in()
        replica.log_in()
        other = "another secret key of another project"
        with serving(application(keyed(settings, TRIGGERKIT_SECRET_KEY=other))) as site:
            elsewhere = Visitor(site.port)
            assert elsewhere.submit("/login", {"key": other}).status == 303
        names = [str(one.cookie).partition("=")[0] for one in (here, replica, elsewhere)]
        assert names[0] == names[1] != names[2]
        here.cookie = f"{here.cookie}; {elsewhere.cookie}"
        assert here.get("/runs").status == 200


@pytest.mark.parametrize("has_proxy", [False, True])
def test_a_client_is_named_by_a_proxy_only_where_there_is_one(
    settings: Settings, has_proxy: bool
) -> None:
    given = keyed(settings, **({"TRIGGERKIT_PUBLIC_URL": PUBLIC_URL} if has_proxy else {}))
    served = application(given)
    with serving(served, server_config(served, given)) as site:
        visitor = Visitor(site.port)
        statuses = [
            visitor.submit("/login", {"key": "wrong"}, x_forwarded_for=f"10.0.0.{n}").status
            for n in range(MOST_WRONG + 1)
        ]
    assert statuses[-1] == (403 if has_proxy else 429)


def test_a_database_whose_name_has_a_slash_has_a_page(state: RunState, visitor: Visitor) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    state.connection.execute("UPDATE triggerkit.databases SET name = 'a/b c'")
    [link] = {to for to in visitor.get("/databases").links if "/databases/" in to}
    assert "Database a/b c" in visitor.request("GET", link).text
    assert "Database a/b c" in visitor.get("/databases/a/b%20c").text


@pytest.mark.parametrize("name", [".", ".."])
def test_no_consumer_has_a_name_that_leads_up(state: RunState, visitor: Visitor, name: str) -> None:
    posts(state.settings)
    body = f'{{"name": "{name}", "tables": ["posts"]}}'
    given = {"authorization": f"Bearer {KEY}", "content_type": "application/json"}
    refused = visitor.request("POST", "/api/v1/consumers", body, **given)
    assert (refused.status, "not a valid consumer name" in refused.html) == (422, True)


def test_a_form_of_too_many_tables_or_fields_holds_nobody_up(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    many = "&".join(f"table=t{number}" for number in range(3000))
    started = time.process_time()
    assert visitor.get(f"/new/consumer?{many}").status == 200
    # The server is of this process, too.
    assert time.process_time() - started < 3
    fields = {f"filters.{number}.value": "1" for number in range(3000)}
    refused = visitor.submit("/new/consumer", {**fields, "csrf": visitor.get("/runs").csrf})
    assert (refused.status, "more than 1000 fields" in refused.text) == (413, True)


@pytest.mark.parametrize(
    "table", ["public.secrets", "pg_catalog.pg_authid", "triggerkit.endpoints", "triggerkit.runs"]
)
def test_a_task_is_tested_with_rows_of_published_tables_alone(state: RunState, table: str) -> None:
    @task(name="index", on=rows("public.posts"))
    def index(change: Change[Row]) -> None: ...

    posts(state.settings)
    make_consumer(state.settings)
    with psycopg.connect(state.settings.source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE public.secrets (id int PRIMARY KEY, text text)")
        source.execute("INSERT INTO public.secrets VALUES (1, 'hunter2')")
        source.execute("INSERT INTO public.posts (title) VALUES ('of a post')")
    with dashboard(state.settings, [index]) as visitor:
        visitor.log_in()
        assert "of a post" in visitor.get("/tasks/index/test?table=public.posts").text
        refused = visitor.get(f"/tasks/index/test?table={table}&key=1", 422)
        assert "is not published" in refused.text
        assert "hunter2" not in refused.html


def test_the_overview_says_that_redis_is_away(state: RunState) -> None:
    with dashboard(state.settings, REDIS_URL="redis://127.0.0.1:1/0") as visitor:
        page = visitor.log_in().get("/").text
        assert "Overview not ready" in page
        assert "transport of runs, redis It does not answer" in page
        assert "correct REDIS_URL" in page
