"""The pages of runs on real runs: the list, one run, what is done to it."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

import orjson

from tests.integration.run_state import RunState, new_run
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.visitor import Visitor
from triggerkit.runs.run import Outcome, RunError

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/app.py", line 3, in serve
    tell()
  File "/srv/shop/tasks.py", line 7, in tell
    send()
  File "/usr/lib/python3.11/site-packages/smtp/client.py", line 9, in send
    raise ConnectionError
"""


def test_runs_are_paged_and_filtered_by_the_url(state: RunState, visitor: Visitor) -> None:
    refs = state.accept(*(new_run(payload=b'{"secret":1}') for _ in range(53)))
    ids = sorted((ref.id for ref in refs), reverse=True)
    first = visitor.get("/runs?task=work&tag=")
    assert "secret" not in first.html
    [older] = [to for to in first.links if "cursor=" in to]
    assert "filter=task%3Awork" in older
    second = visitor.request("GET", older)
    found = [re.findall(r"run_\w{26}</a>", page.html) for page in (first, second)]
    assert [run.removesuffix("</a>") for page in found for run in page] == ids
    assert [to for to in second.links if to.endswith("/runs?filter=task%3Awork")]
    assert not [to for to in second.links if "cursor=" in to]
    assert "No run fits" in visitor.get("/runs?status=failed").text
    kept = visitor.get("/runs?queue=default&status=queued")
    assert 'value="queue:default status:queued"' in kept.html
    assert 'chosen" title="Leave this out of the filter">status:queued</a>' in kept.html
    for wrong in ("status=lost", "since=yesterday", "color=red", "limit=100000"):
        assert wrong.partition("=")[0] in visitor.get(f"/runs?{wrong}", 422).text
    visitor.get("/runs?task=%00", 422)


def test_an_empty_list_says_what_to_do_next(visitor: Visitor) -> None:
    assert "triggerkit trigger TASK" in visitor.get("/runs").text
    assert "triggerkit apply" in visitor.get("/consumers").text
    assert "public.posts 17" in visitor.get("/why").text


def test_a_failed_run_shows_its_error_with_the_projects_own_frames_first(
    state: RunState, visitor: Visitor
) -> None:
    [ref] = state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim([ref.id])
        error = RunError("shop.Refused", "no luck", TRACEBACK)
        claims.complete([Outcome(run, "failed", error=error)])
    page = visitor.get(f"/runs/{ref.id}")
    frames = re.findall(r"<li><code>(.*?)</code></li>", page.html)
    assert frames == ["/srv/shop/tasks.py:7 in tell", "/srv/shop/app.py:3 in serve"]
    assert "shop.Refused" in page.text
    assert "smtp/client.py" in page.text
    assert "/cancel" not in page.html
    assert visitor.get("/runs?status=failed").text.count("shop.Refused: no luck") == 1


def test_a_run_is_replayed_and_canceled_with_a_line_in_the_audit(
    state: RunState, visitor: Visitor
) -> None:
    [first] = state.accept(new_run(payload=b'{"n":7}'))
    page = visitor.follow(visitor.act(f"/runs/{first.id}/replay"))
    assert f"replay of {first.id}" in page.text
    assert '"n": 7' in page.text
    assert "canceled" in visitor.follow(visitor.act(f"/runs/{first.id}/cancel")).text
    again = visitor.act(f"/runs/{first.id}/cancel")
    assert (again.status, "has ended already" in again.text) == (409, True)
    assert visitor.act("/runs/run_x/cancel").status == 404
    assert visitor.act("/runs/run_x/replay").status == 404
    audit = state.rows(
        "SELECT actor, action, subject FROM triggerkit.audit WHERE action <> 'login'"
    )
    assert audit == [
        ("dashboard", "replay run", f"run {first.id}"),
        ("dashboard", "cancel run", f"run {first.id}"),
    ]


def test_what_does_not_exist_is_a_page_that_says_so(visitor: Visitor) -> None:
    for path in ("/runs/run_x", "/runs/%00", "/consumers/nothing", "/why?q=run_x", "/nothing"):
        assert visitor.request("GET", f"/dashboard{path}").status in (404, 422), path
    assert "run_x" in visitor.get("/runs/run_x", 404).text
    assert "nothing" in visitor.get("/consumers/nothing", 404).text


def test_long_vectors_and_texts_are_named_by_their_size(state: RunState, visitor: Visitor) -> None:
    vector = ",".join(["0.25"] * 1536)
    text = "x" * 5_000_000
    payload = f'{{"v":[{vector}],"s":"[{vector}]","t":"{text}","n":9007199254740993}}'
    [ref] = state.accept(new_run(payload=payload.encode()))
    page = visitor.get(f"/runs/{ref.id}")
    assert page.text.count("1536 floats") == 2
    assert "9007199254740993" in page.text
    assert "4,998,000 more characters" in page.text
    assert len(page.html) < 30_000


def test_a_row_is_followed_from_its_commit_to_its_effect(state: RunState) -> None:
    with followed(state) as visitor:
        old, new = state.rows("SELECT id FROM triggerkit.runs ORDER BY id")
        page = visitor.get(f"/runs/{new}")
        names = re.findall(r'class="what depth-\d">(.*?)</td>', page.html)
        assert [name.strip() for name in names] == [
            "committed", "to the log", "captured", "waits for delivery",
            "tell: delivery, attempt 1", "accepted", "queued", "attempt 1", "greet",
            "waits for its retry", "queued", "attempt 2", "greet", "done",
        ]  # fmt: skip
        assert not re.search(r"-\d[\d.,]* m?s", page.text)
        assert 'rect class="wait"' in page.html
        assert "update of public.items 1 · LSN" in page.text
        assert re.search(r"text\s+one\s+two", page.text)
        assert "hello" in page.text
        assert f"/dashboard/runs/{old}" in page.links
        assert "/dashboard/consumers/tell" in page.links
        why = visitor.get("/why?q=public.items+1")
        assert "completed" in why.text
        assert f"/dashboard/runs/{new}" in why.links
        assert "position" in visitor.get("/why?q=2").text
        consumer = visitor.get("/consumers/tell")
        assert "public.items" in consumer.text
        assert "None: every message that it was sent was taken" in consumer.text
        state.connection.execute("DELETE FROM triggerkit.events")
        state.connection.execute("UPDATE triggerkit.databases SET retained_from = next_position")
        dropped = visitor.get(f"/runs/{new}").text
        assert "The change is not shown" in dropped
        assert "attempt 2" in dropped


def test_a_run_of_a_row_that_no_parser_takes_is_shown_with_it(
    state: RunState, visitor: Visitor
) -> None:
    payload = b'{"record":{"id":17,"limit":1e400,"name":"Ada"},"metadata":{}}'
    [ref] = state.accept(new_run(payload=payload))
    page = visitor.get(f"/runs/{ref.id}")
    assert '"limit": "1e400"' in page.text
    assert '"name": "Ada"' in page.text


def test_runs_are_found_by_the_key_of_their_row_as_it_is_shown(
    state: RunState, visitor: Visitor
) -> None:
    rows = [('public."a.b"', ["1", "x y"]), ("public.items", ["a,b"]), ("public.items", ["c"])]
    for table, values in rows:
        key = f"{table}:{orjson.dumps(values).decode()}"
        [ref] = state.accept(new_run(source={"table": table, "key": key}))
        shown = ",".join(values)
        assert f"{table} {shown}" in visitor.get("/runs").text
        asked = urlencode({"filter": f"table:{table} key:'{shown}'"})
        assert re.findall(r"run_\w{26}(?=</a>)", visitor.get(f"/runs?{asked}").html) == [ref.id]


def test_a_run_is_replayed_with_a_payload_that_was_edited_and_checked(
    state: RunState, visitor: Visitor
) -> None:
    [first] = state.accept(new_run(payload=b'{"n":7}'))
    at = f"/runs/{first.id}/replay"
    page = visitor.get(at)
    assert '"n": 7' in page.text
    assert at in visitor.get(f"/runs/{first.id}").html
    form = {"csrf": page.csrf, "with": "edited"}
    for wrong, said in (
        ('{"n": "<b>no"}', "n: Input should be a valid integer"),
        ('{"n": 8', "the payload: is no JSON: Expecting ',' delimiter at line 1, column 8"),
        ('{"n": NaN}', "NaN is no number of JSON"),
        ('{"n": -1e400}', "-1e400 is no number of JSON"),
        ("[" * 20_000, "the payload: is no JSON"),
    ):
        refused = visitor.submit(at, {**form, "payload": wrong})
        assert refused.status == 422
        assert said in refused.text
        # What was typed stays.
        assert html.escape(wrong[:50], quote=False) in refused.html.replace("&#34;", '"')
        assert "<b>no" not in refused.html
    new = visitor.follow(visitor.submit(at, {**form, "payload": '{"n": 8}'}))
    assert '"n": 8' in new.text
    assert f"replay of {first.id}" in new.text
    [made] = state.rows("SELECT id FROM triggerkit.runs WHERE replay_of = %s", first.id)
    old = visitor.get(f"/runs/{first.id}")
    assert "Its replays" in old.text
    assert f"/dashboard/runs/{made}" in old.links
    assert state.rows("SELECT detail FROM triggerkit.audit WHERE action = 'replay run'") == [
        {"run": made, "payload": "edited"}
    ]
    for value in ("12345678901234567890123", "9007199254740993"):
        exact = visitor.submit(at, {**form, "payload": f'{{"n": {value}}}'})
        assert (value in visitor.follow(exact).text) if exact.status == 303 else exact.status == 422


def test_a_payload_goes_through_its_form_as_it_is(state: RunState, visitor: Visitor) -> None:
    given = '{"t":"\\u202e\\u0007\\u009b\\\\ \\r\\n é 😀 </textarea><b>","u":12345678901234567890}'
    [run] = state.accept(new_run(task="other", payload=given.encode()))
    page = visitor.get(f"/runs/{run.id}/replay")
    box = re.search(r"<textarea[^>]*>(.*?)</textarea>", page.html, re.S)
    assert box is not None
    # As a browser sends it.
    typed = html.unescape(box[1]).replace("\n", "\r\n")
    form = {"csrf": page.csrf, "with": "edited", "payload": typed}
    visitor.follow(visitor.submit(f"/runs/{run.id}/replay", form))
    [new] = state.rows("SELECT payload FROM triggerkit.runs WHERE replay_of IS NOT NULL")
    assert orjson.loads(new) == orjson.loads(given)


def test_a_run_that_waits_is_rescheduled_and_started_now(state: RunState, visitor: Visitor) -> None:
    [waiting] = state.accept(new_run(delay_s=3600))
    at = f"/runs/{waiting.id}"
    page = visitor.get(at)
    assert f'action="/dashboard{at}/reschedule"' in page.html
    form = {"csrf": page.csrf}
    due = (
        "SELECT round(extract(epoch FROM scheduled_at - clock_timestamp()) / 60) "
        "FROM triggerkit.runs"
    )
    visitor.follow(visitor.submit(f"{at}/reschedule", {**form, "when": "2h"}))
    assert state.rows(due) == [120]
    later = visitor.submit(f"{at}/reschedule", {**form, "when": "2999-01-01T00:00:00Z"})
    assert "in " in visitor.follow(later).text
    # What is stored is to be read again, by every list of runs.
    for wrong in ("", "soon", "2026-99-99", "9999-12-31T23:59:59-14:00"):
        refused = visitor.submit(f"{at}/reschedule", {**form, "when": wrong})
        assert (refused.status, "when" in refused.text) == (422, True)
    visitor.follow(visitor.submit(f"{at}/reschedule", {**form, "when": "now"}))
    assert state.rows(due) == [0]
    state.accept(new_run())
    visitor.follow(visitor.act(f"{at}/cancel"))
    ended = visitor.submit(f"{at}/reschedule", {**form, "when": "now"})
    assert (ended.status, "only a run that waits" in ended.text) == (409, True)
    assert "/reschedule" not in visitor.get(at).html
    assert visitor.submit("/runs/run_x/reschedule", {**form, "when": "now"}).status == 404
    actions = state.rows("SELECT action FROM triggerkit.audit WHERE action = 'reschedule run'")
    assert actions == ["reschedule run"] * 3


def test_a_run_is_replayed_with_its_row_as_it_is_now(state: RunState) -> None:
    with followed(state) as visitor:
        old, _ = state.rows("SELECT id FROM triggerkit.runs ORDER BY id")
        state.connection.execute("UPDATE public.items SET text = 'three'")
        csrf = visitor.get(f"/runs/{old}/replay").csrf
        form = {"csrf": csrf, "with": "current"}
        new = visitor.follow(visitor.submit(f"/runs/{old}/replay", form))
        assert '"text": "three"' in new.text
