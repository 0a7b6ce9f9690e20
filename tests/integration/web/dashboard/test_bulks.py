"""One thing done to all that fit a filter: counted first, in the background, once."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

import psycopg
import pytest

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Seen, Visitor
from triggerkit import task
from triggerkit.runs.client import Client
from triggerkit.runs.run import Outcome, RunError
from triggerkit.state.connect import connect
from triggerkit.web.bulk import worker
from triggerkit.web.bulk.steps import STEP_RUNS, STEPS
from triggerkit.web.bulk.store import Bulk, find_bulk, list_bulks, make_bulk, record_part


def ended(state: RunState, **of: int) -> None:
    """Runs that ended in these statuses."""
    for status, count in of.items():
        refs = state.accept(*(new_run() for _ in range(count)))
        error = None if status == "completed" else RunError("shop.Refused", "no luck", "")
        with state.claims() as claims:
            runs = claims.claim([ref.id for ref in refs])
            claims.complete(
                [
                    completed(run) if error is None else Outcome(run, status, error=error)  # type: ignore[arg-type]
                    for run in runs
                ]
            )


def asked_for(visitor: Visitor, action: str, filter_: str = "") -> tuple[Seen, dict[str, str]]:
    """The page that counts first, and what its form sends."""
    page = visitor.get(f"/bulks/new?action={action}&filter={quote(filter_)}")
    form = page.html[page.html.index('class="ask"') :] if 'class="ask"' in page.html else ""
    return page, dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))


def started(visitor: Visitor, form: dict[str, str]) -> str:
    """Where a bulk is shown."""
    answer = visitor.submit("/bulks", {k: v for k, v in form.items() if k != "current"})
    assert answer.status == 303, answer.text
    return answer.headers["location"].removeprefix("/dashboard")


def is_done(state: RunState, count: int = 1) -> bool:
    return state.rows("SELECT state FROM triggerkit.bulks") == ["done"] * count


def audited(state: RunState) -> list[str]:
    return state.rows("SELECT action FROM triggerkit.audit WHERE action <> 'login' ORDER BY id")


def test_runs_that_fit_are_counted_then_canceled_and_others_stay(
    state: RunState, visitor: Visitor
) -> None:
    many = STEP_RUNS + 20
    state.accept(*(new_run(queue="slow") for _ in range(many)))
    state.accept(new_run())
    assert "action=cancel-runs" in visitor.get("/runs?filter=queue:slow").html
    page, form = asked_for(visitor, "cancel-runs", "queue:slow")
    assert f"This cancels {many:,} runs." in page.text
    assert state.statuses().count("canceled") == 0
    # What comes after the count is not meant.
    state.accept(new_run(queue="slow"))
    at = started(visitor, form)
    state.wait_for(lambda: is_done(state))
    assert state.rows(
        "SELECT queue, status, count(*) FROM triggerkit.runs GROUP BY 1, 2 ORDER BY 1, 2"
    ) == [("default", "queued", 1), ("slow", "canceled", many), ("slow", "queued", 1)]
    shown = visitor.get(at).text
    assert f"{many:,} done of {many:,}" in shown
    assert "0 failed" in shown
    assert "cancel runs" in visitor.get("/bulks").text
    assert audited(state) == ["start bulk", "end bulk"]
    assert "There is nothing to do" in asked_for(visitor, "cancel-runs", "queue:other")[0].text


def test_failed_runs_are_replayed_and_the_new_runs_are_found(
    state: RunState, visitor: Visitor
) -> None:
    ended(state, failed=3, crashed=1, completed=2)
    page, form = asked_for(visitor, "retry-runs", "task:work")
    assert "This replays 4 runs." in page.text
    at = started(visitor, form)
    state.wait_for(lambda: is_done(state))
    made = state.rows("SELECT id FROM triggerkit.runs WHERE replay_of IS NOT NULL ORDER BY id")
    assert len(made) == 4
    [link] = [to for to in visitor.get(at).links if "tag%3Abulk" in to]
    found = visitor.request("GET", link).html
    assert all(run in found for run in made)
    page, form = asked_for(visitor, "replay-runs", "status:completed")
    assert "This replays 2 runs." in page.text
    wrong = visitor.get("/bulks/new?action=retry-runs&filter=status:completed", 422)
    assert "failed or crashed or timed_out" in wrong.text


def step_again(state: RunState, action: str, **given: str) -> list[Bulk]:
    """Do each step of a bulk twice, as when `serve` is killed before it has kept the first."""

    @task(name="work")
    def work(payload: dict[str, int]) -> None: ...

    async def stepped() -> list[Bulk]:
        client = await Client.open(state.settings)
        try:
            async with await connect(state.settings.state_dsn, "test") as connection:
                made = await make_bulk(connection, action, given, "test", expected=None)  # type: ignore[arg-type]
                while (bulk := await find_bulk(connection, made.id)).state == "active":
                    await STEPS[bulk.action](client, {"work": work}, bulk)
                    part = await STEPS[bulk.action](client, {"work": work}, bulk)
                    await record_part(connection, bulk, part)
                return await list_bulks(connection)
        finally:
            await client.close()

    return asyncio.run(stepped())


def test_a_step_that_is_cut_off_replays_no_run_twice(state: RunState) -> None:
    ended(state, failed=STEP_RUNS + 3)
    [bulk] = step_again(state, "replay runs", text="run_")
    assert (bulk.changed, bulk.refused) == (STEP_RUNS + 3, 0)
    assert state.rows(
        "SELECT count(*), count(DISTINCT replay_of) FROM triggerkit.runs "
        "WHERE replay_of IS NOT NULL"
    ) == [(STEP_RUNS + 3, STEP_RUNS + 3)]


def test_a_bulk_that_a_killed_serve_left_is_done_by_the_next(
    state: RunState, visitor: Visitor
) -> None:
    state.accept(*(new_run() for _ in range(5)))

    async def left_behind() -> None:
        # Whoever was killed had the lock, and its connection is closed by that.
        async with await connect(state.settings.state_dsn, "test") as killed:
            await killed.execute("SELECT pg_advisory_lock(%s)", [worker.BULK_LOCK])
            await make_bulk(killed, "cancel runs", {}, "test", expected=5)
            await asyncio.sleep(2 * worker.LOOK_S)
            assert set(state.statuses()) == {"queued"}

    asyncio.run(left_behind())
    state.wait_for(lambda: is_done(state))
    assert set(state.statuses()) == {"canceled"}


def test_one_is_stopped_and_goes_on_and_who_comes_second_is_told(
    state: RunState, visitor: Visitor
) -> None:
    with psycopg.connect(state.settings.state_dsn, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [worker.BULK_LOCK])
        state.accept(*(new_run() for _ in range(5)))
        at = started(visitor, asked_for(visitor, "cancel-runs")[1])
        waiting = visitor.get(at)
        assert "It waits for a serve" in waiting.text
        assert '<noscript><meta http-equiv="refresh"' in waiting.html
        assert "stopped" in visitor.follow(visitor.act(f"{at}/stop")).text
        second = visitor.act(f"{at}/stop")
        assert (second.status, "somebody was there before" in second.text) == (409, True)
    assert visitor.follow(visitor.act(f"{at}/resume")).status == 200
    state.wait_for(lambda: is_done(state))
    assert set(state.statuses()) == {"canceled"}
    assert visitor.act(f"{at}/resume").status == 409
    for wrong in ("/bulks/999", "/bulks/x"):
        visitor.get(wrong, 404)
    assert audited(state) == ["start bulk", "stop bulk", "resume bulk", "end bulk"]


def park(state: RunState, *states: str) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, state, reason, "
        "attempts, body, due_at) SELECT c.id, 0, p.n, 'public.posts:[\"' || p.n || '\"]', p.state, "
        "'answered 500', CASE WHEN p.state = 'blocked' AND p.n = 1 THEN 0 ELSE 3 END, '{}', now() "
        "FROM triggerkit.consumers c, unnest(%s::text[]) WITH ORDINALITY AS p (state, n)",
        [list(states)],
    )


def test_parked_messages_are_retried_by_filter_and_what_cannot_be_is_told(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    park(state, "blocked", "dead", "dead", "waiting")
    assert "action=retry-messages" in visitor.get("/messages").html
    page, form = asked_for(visitor, "retry-messages", "state:dead")
    assert "This tries again 2 parked messages." in page.text
    started(visitor, form)
    state.wait_for(lambda: is_done(state))
    parked = "SELECT state FROM triggerkit.parked ORDER BY position"
    assert state.rows(parked) == ["blocked", "failing", "failing", "waiting"]
    at = started(visitor, asked_for(visitor, "retry-messages")[1])
    state.wait_for(lambda: is_done(state, 2))
    shown = visitor.get(at).text
    assert "1 failed" in shown
    assert "cannot be sent: answered 500; discard it" in shown
    page, form = asked_for(visitor, "discard-messages", "consumer:posts_push_consumer")
    assert "This discards 4 parked messages." in page.text
    started(visitor, form)
    state.wait_for(lambda: is_done(state, 3))
    assert state.rows(parked) == []


def test_what_cannot_be_asked_for_is_said(state: RunState, visitor: Visitor) -> None:
    visitor.get("/bulks/new?action=forget-runs", 404)
    visitor.get("/bulks/new?action=cancel-runs&filter=key:17", 422)
    visitor.get("/bulks/new?action=cancel-runs&filter=status:lost", 422)
    visitor.get("/bulks/new?action=retry-messages&filter=state:lost", 422)
    visitor.get("/bulks/new?action=retry-messages&filter=consumer:nobody", 422)
    csrf = visitor.get("/runs").csrf
    for form in ({"action": "cancel-runs"}, {"action": "cancel-runs", "filter": "color:red"}):
        refused = visitor.submit("/bulks", {"csrf": csrf, **form})
        assert refused.status == 422, refused.text
    assert state.rows("SELECT count(*) FROM triggerkit.bulks") == [0]


def test_a_bulk_that_cannot_go_on_says_why(state: RunState, visitor: Visitor) -> None:
    async def of_nobody() -> None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            wrong = {"table": "a", "since": "not a moment"}
            await make_bulk(connection, "cancel runs", wrong, "test", expected=None)

    asyncio.run(of_nobody())
    state.wait_for(lambda: state.rows("SELECT state FROM triggerkit.bulks") == ["failed"])
    assert "It was given up: ValueError" in visitor.get("/bulks/1").text


def test_a_count_that_ends_at_a_bound_leads_to_the_exact_one(
    state: RunState, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.web.dashboard.pages.runs.MOST_COUNTED", 55)
    state.accept(*(new_run() for _ in range(60)))
    page = visitor.get("/runs?filter=task:work")
    assert re.search(r"Runs 5\d\+ ", page.text)
    [link] = [to for to in page.links if "/runs/count" in to]
    assert "60 runs fit task:work" in visitor.request("GET", link).text
    assert "60 runs fit" in visitor.get("/runs/count").text
    visitor.get("/runs/count?filter=color:red", 422)
