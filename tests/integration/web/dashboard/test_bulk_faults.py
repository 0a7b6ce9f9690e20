"""Bulks of which a part cannot be done, and rows that cannot be looked up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from psycopg import sql

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.forms import press
from tests.integration.web.dashboard.test_bulks import asked_for, ended, is_done, started
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from tests.integration.worker_thread import Row
from triggerkit import Change, changes, task
from triggerkit.state.connect import connect
from triggerkit.web.bulk.store import Action, make_bulk


def asked(state: RunState, action: Action, *, current: bool = False, **given: object) -> None:
    """A bulk that somebody asked for."""

    async def made() -> None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            await make_bulk(connection, action, given, "test", expected=None, current=current)

    asyncio.run(made())


def test_a_bulk_that_waits_for_the_source_holds_up_no_other(state: RunState) -> None:
    ended(state, failed=2)
    state.accept(new_run(queue="slow"))
    asked(state, "replay runs", current=True)
    asked(state, "cancel runs", queue="slow")
    given = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/shop",
        "TRIGGERKIT_STATE_URL": state.settings.state_dsn,
    }
    with dashboard(state.settings, (), **given):
        states = "SELECT state FROM triggerkit.bulks ORDER BY id"
        state.wait_for(lambda: state.rows(states) == ["active", "done"])


def test_a_row_whose_key_does_not_fit_is_refused_and_the_rest_goes_on(state: RunState) -> None:
    with followed(state) as visitor:
        state.accept(new_run())
        ids = state.rows("SELECT id FROM triggerkit.runs WHERE status = 'completed' ORDER BY id")
        state.connection.execute(
            "ALTER TABLE public.items ALTER id TYPE uuid USING gen_random_uuid()"
        )
        form = {"csrf": visitor.get("/runs").csrf, "with": "current"}
        refused = visitor.submit(f"/runs/{ids[0]}/replay", form)
        assert refused.status == 409
        assert "the key does not fit the type of public.items's id" in refused.text
        asked(state, "replay runs", current=True)
        state.wait_for(lambda: is_done(state))
        shown = visitor.get("/bulks/1").text
        assert "2 failed" in shown
        assert "does not fit the type" in shown


def test_a_form_that_is_sent_twice_replays_each_run_once(state: RunState, visitor: Visitor) -> None:
    ended(state, failed=3)
    _, form = asked_for(visitor, "retry-runs", "task:work")
    assert started(visitor, form) == started(visitor, form)
    state.wait_for(lambda: is_done(state))
    assert started(visitor, form) == "/bulks/1"
    made = "SELECT count(*) FROM triggerkit.runs WHERE replay_of IS NOT NULL"
    assert state.rows(made) == [3]
    # The page that is loaded again means it.
    _, form = asked_for(visitor, "retry-runs", "task:work")
    assert started(visitor, form) == "/bulks/2"
    state.wait_for(lambda: is_done(state, 2))
    assert state.rows(made) == [6]


def test_a_run_has_the_tag_of_the_bulk_that_made_it_alone(
    state: RunState, visitor: Visitor
) -> None:
    ended(state, failed=1)
    state.connection.execute("UPDATE triggerkit.runs SET tags = '{nightly,bulk:x}'")
    asked(state, "replay runs", statuses=["failed"])
    state.wait_for(lambda: is_done(state))
    with state.claims() as claims:
        [new] = state.rows("SELECT id FROM triggerkit.runs WHERE status = 'queued'")
        claims.complete([completed(run) for run in claims.claim([new])])
    asked(state, "replay runs", statuses=["completed"])
    state.wait_for(lambda: is_done(state, 2))
    visitor.act(f"/runs/{new}/replay")
    tags = "SELECT tags FROM triggerkit.runs WHERE replay_of IS NOT NULL ORDER BY id"
    own = ["nightly", "bulk:x"]
    assert state.rows(tags) == [[*own, "bulk:1"], [*own, "bulk:2"], own]


@contextmanager
def without_select(state: RunState) -> Iterator[Visitor]:
    """Somebody who is logged in where the source's role sees no row of `posts`."""

    @task(on=changes("public.posts"))
    def tell(change: Change[Row]) -> None: ...

    posts(state.settings)
    make_consumer(state.settings)
    role = sql.Identifier("sees_no_rows")
    connection = state.connection
    connection.execute("INSERT INTO public.posts (title) VALUES ('hunter2')")
    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
    connection.execute(sql.SQL("CREATE ROLE {} REPLICATION").format(role))
    # A role that may be taken, not one by which others could log in.
    source = f"{state.settings.source_dsn}&options=-c%20role%3Dsees_no_rows"
    given = {"DATABASE_URL": source, "TRIGGERKIT_STATE_URL": state.settings.state_dsn}
    try:
        with dashboard(state.settings, [tell], **given) as visitor:
            yield visitor.log_in()
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def test_a_table_that_may_not_be_read_is_named_with_what_to_grant(state: RunState) -> None:
    metadata = {"table_schema": "public", "table_name": "posts", "record_pks": ["1"]}
    payload = json.dumps({"record": {}, "metadata": metadata}).encode()
    [run] = state.accept(new_run(payload=payload))
    said = "may not read public.posts; let it: GRANT SELECT ON public.posts"
    with without_select(state) as visitor:
        first = visitor.get("/new/consumer")
        seen = press(visitor, "/new/consumer", first, "preview", tables__0="public.posts")
        assert (seen.status, said in seen.text) == (409, True)
        assert said in visitor.get("/tasks/tell/test?table=public.posts", 422).text
        assert said in visitor.get("/tasks/tell/test?table=public.posts&key=1", 422).text
        form = {"csrf": first.csrf, "with": "current"}
        replayed = visitor.submit(f"/runs/{run.id}/replay", form)
        assert (replayed.status, said in replayed.text) == (409, True)


def test_pages_take_no_connection_that_the_database_has_ended(
    state: RunState, visitor: Visitor
) -> None:
    def load() -> list[int]:
        with ThreadPoolExecutor(6) as threads:
            return [*threads.map(lambda _: visitor.request("GET", at).status, range(12))]

    at = f"{visitor.base}/runs"
    own = "FROM pg_stat_activity WHERE application_name = 'triggerkit dashboard'"
    state.wait_for(lambda: [*load()] and state.rows(f"SELECT count(*) >= 2 {own}")[0])
    # As after a restart, or a failover in the night.
    state.connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {own}".encode())
    assert [visitor.request("GET", at).status for _ in range(4)] == [200] * 4
