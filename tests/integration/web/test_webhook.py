"""The webhook route over real HTTP: what it refuses, accepts once, and answers."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import orjson
import pytest

from tests.integration.run_state import RunState
from tests.integration.serving import AUTHORIZED, Answer, Site, message, serving
from tests.integration.worker_thread import Order, Row, row_key
from triggerkit import Change, rows, task
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings
from triggerkit.tasks.receive.body import MAX_BODY_BYTES
from triggerkit.tasks.receive.receipt import MAX_MESSAGES
from triggerkit.web.application import Application
from triggerkit.web.webhook import webhook

IDS = "SELECT id FROM triggerkit.runs ORDER BY seq"
SINGLE, BATCH, PLAIN = "/api/route-single", "/api/route-batch", "/orders"


@task(on=rows("public.posts"))
def route_single(change: Change[Row]) -> None: ...


@task(on=rows("public.posts"))
def route_batch(batch: list[Change[Row]]) -> None: ...


@task(on=rows("public.posts", via="direct"))
def direct_single(change: Change[Row]) -> None: ...


@task
def route_plain(order: Order) -> None: ...


def application(settings: Settings) -> Application:
    orders = webhook(PLAIN, task=route_plain)

    async def user_app(scope: Any, receive: Any, send: Any) -> None:
        await orders.handle(scope, receive, send)

    return Application(settings, [route_single, route_batch, direct_single, route_plain], user_app)


@pytest.fixture
def site(settings: Settings, state: RunState) -> Iterator[Site]:
    with serving(application(settings)) as site:
        yield site


def test_without_the_secret_nothing_is_read_and_nothing_starts(site: Site, state: RunState) -> None:
    wrong = ["", "Bearer", "Bearer undefined", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer \xfc"]
    for given in ({}, *({"authorization": value} for value in wrong)):
        for body in (message(1), b"malformed"):
            answer = site.post(SINGLE, body, given, authorized=False)
            assert (answer.status, answer.json) == (401, {"error": "Unauthorized"})
            assert answer.headers["www-authenticate"] == "Bearer"
    unsent_body = {"content-length": "1000000", "content-type": "application/json"}
    assert site.request("POST", SINGLE, None, unsent_body).status == 401
    assert state.statuses() == []


def test_a_task_that_gets_its_messages_directly_has_no_route(site: Site, state: RunState) -> None:
    # The project's app has such paths: this one answers all of them.
    assert site.post(direct_single.path, message(1)).status == 422
    assert state.statuses() == []


def test_a_request_that_is_not_json_within_limits_is_refused(site: Site, state: RunState) -> None:
    chunk = b" " * 65536
    too_large = iter([chunk] * (MAX_BODY_BYTES // len(chunk) + 1))
    declared = {"content-length": str(MAX_BODY_BYTES + 1)}
    answers = [
        site.post(SINGLE, b"{"),
        site.post(SINGLE, b"[" * 10_000),
        site.post(SINGLE, b'{"id":' + b"9" * 5000 + b"}"),
        site.post(SINGLE, too_large),
        site.request("POST", SINGLE, None, {**AUTHORIZED, **declared, "content-type": "a/json"}),
        site.post(SINGLE, b"", declared),
        site.post(SINGLE, b"{}", {"content-type": "text/plain"}),
        site.post(SINGLE, b"{}", {"content-encoding": "br"}),
        site.request("GET", SINGLE, None, AUTHORIZED),
    ]
    statuses = [answer.status for answer in answers]
    assert statuses == [400, 400, 422, 413, 415, 413, 415, 415, 405]
    assert state.statuses() == []


def test_a_message_that_does_not_fit_is_a_422_that_names_the_fields(
    site: Site, state: RunState
) -> None:
    wrong = message(1)
    wrong["record"]["id"] = "x"
    answer = site.post(SINGLE, wrong)
    assert (answer.status, answer.json["error"]) == (422, "Invalid payload")
    [problem] = answer.json["detail"]
    assert (problem["loc"], set(problem)) == (["record", "id"], {"loc", "msg"})
    answer = site.post(BATCH, {"data": [message(2), wrong]})
    assert [problem["loc"] for problem in answer.json["detail"]] == [["data", 1, "record", "id"]]
    nothing: list[Any] = [{"data": []}, [message(1)], None, 7]
    assert [site.post(BATCH, body).status for body in nothing] == [422] * 4
    assert site.post(PLAIN, {"number": "x"}).json["detail"][0]["loc"] == ["number"]
    assert state.statuses() == []


def test_a_message_starts_a_run_and_is_answered_by_its_handle(site: Site, state: RunState) -> None:
    answer = site.post(SINGLE, message(5))
    assert answer.status == 200
    assert answer.json == {"id": state.pushed("route_single")[0], "task": "route_single"}
    run = state.run(answer.json["id"])
    assert (run["items"], run["idempotency_key"]) == (None, "key-5")
    assert run["concurrency_key"] == f"row/{row_key(5)}"
    assert run["source"] == {
        "consumer": "posts",
        "table": "public.posts",
        "position": 5,
        "last_position": 5,
        "commit_lsn": 1005,
        "key": row_key(5),
    }
    assert orjson.loads(run["payload"]) == message(5)


def test_a_batch_for_a_batch_task_is_one_run_and_its_handle_repeats(
    site: Site, state: RunState
) -> None:
    ours = {"triggerkit-attempt": "1", "webhook-id": "msg_1"}
    answer = site.post(BATCH, {"data": [message(1), message(2), message(1, "key-3")]}, ours)
    [run_id] = state.pushed("route_batch")
    assert answer.json == {"data": [{"id": run_id, "task": "route_batch"}] * 3}
    run = state.run(run_id)
    assert (run["items"], run["idempotency_key"]) == (3, "msg_1")
    assert run["concurrency_key"] in {f"posts/{n}" for n in range(PARTITIONS)}
    single = site.post(BATCH, message(9), {"triggerkit-attempt": "1"})
    assert (single.json["task"], state.run(single.json["id"])["items"]) == ("route_batch", 1)


def test_a_batch_for_another_task_is_a_run_per_message(site: Site, state: RunState) -> None:
    answer = site.post(SINGLE, {"data": [message(1), message(2), message(1, "key-3")]})
    handles = answer.json["data"]
    assert [state.run(handle["id"])["idempotency_key"] for handle in handles] == [
        "key-1",
        "key-2",
        "key-3",
    ]
    assert state.pushed("route_single") == [handles[0]["id"], handles[1]["id"]]
    answer = site.post(PLAIN, {"data": [{"number": 1}, {"number": 2}]})
    assert len({handle["id"] for handle in answer.json["data"]}) == 2


def test_what_is_sent_again_is_answered_by_the_first_handle_and_starts_nothing(
    site: Site, state: RunState
) -> None:
    def unnamed(*numbers: int) -> list[dict[str, Any]]:
        return [message(n, idempotency_key=None) for n in numbers]

    by_id = {"webhook-id": "msg"}
    sent: list[tuple[str, Any, dict[str, str], int]] = [
        (SINGLE, message(1), {}, 1),
        (SINGLE, unnamed(2)[0], by_id, 1),
        (SINGLE, {"data": [message(3), message(4)]}, {}, 2),
        (SINGLE, {"data": unnamed(5, 6)}, {"webhook-id": "msg_of_two"}, 2),
        (BATCH, message(1), {}, 1),
        (BATCH, unnamed(2)[0], by_id, 1),
        (BATCH, {"data": [message(3), message(4)]}, {}, 1),
        (BATCH, {"data": unnamed(5, 6)}, {"webhook-id": "msg_of_two"}, 1),
        (PLAIN, {"number": 1}, by_id, 1),
        (PLAIN, {"data": [{"number": 1}, {"number": 2}]}, {"webhook-id": "msg_of_two"}, 2),
    ]
    for path, body, headers, runs in sent:
        before = len(state.statuses())
        first = handles_of(site.post(path, body, headers))
        again = handles_of(site.post(path, body, headers))
        assert again == [{**handle, "duplicate": True} for handle in first]
        assert len(state.statuses()) - before == runs == len({h["id"] for h in first})


def test_a_group_and_an_id_longer_than_an_index_row_are_accepted_once(
    site: Site, state: RunState
) -> None:
    long = "".join(token_hex(32) for _ in range(80))
    grouped = message(1, group=long, idempotency_key=None)
    first = handles_of(site.post(SINGLE, grouped, {"webhook-id": long}))
    again = handles_of(site.post(SINGLE, grouped, {"webhook-id": long}))
    assert again == [{**first[0], "duplicate": True}]
    handles_of(site.post(SINGLE, message(2, group=long)))
    assert [row["blocked"] for row in map(state.run, state.rows(IDS))] == [False, True]


def handles_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer
    return list(answer.json["data"]) if "data" in answer.json else [answer.json]


def test_of_a_batch_of_ours_the_good_messages_are_accepted_and_the_others_named(
    site: Site, state: RunState
) -> None:
    wrong = message(2)
    wrong["record"]["id"] = "x"
    batch, ours = {"data": [message(1), wrong, message(3)]}, {"triggerkit-attempt": "1"}
    for path, runs in ((SINGLE, 2), (BATCH, 1)):
        before = len(state.statuses())
        assert site.post(path, batch).status == 422
        assert len(state.statuses()) == before
        answer = site.post(path, batch, {**ours, "webhook-id": "msg_1"})
        assert (answer.status, len(answer.json["data"])) == (200, 2)
        [failed] = answer.json["failed"]
        assert (failed["idempotency_key"], "record.id" in failed["error"]) == ("key-2", True)
        assert len(state.statuses()) == before + runs
        nothing_good = site.post(path, {"data": [wrong]}, ours)
        assert (nothing_good.status, nothing_good.json["data"]) == (200, [])
        assert site.post(path, wrong, ours).status == 422


def test_more_messages_than_a_request_may_carry_are_a_413(site: Site, state: RunState) -> None:
    body = {"data": [{"number": n} for n in range(MAX_MESSAGES + 1)]}
    assert site.post(PLAIN, body).status == 413
    assert state.statuses() == []


def test_a_text_that_postgres_cannot_store_is_a_422(site: Site, state: RunState) -> None:
    assert site.post(SINGLE, message(1, "a\x00b")).status == 422
    assert site.post(BATCH, {"data": [message(1, table_name="a\x00b")]}).status == 422
    assert state.statuses() == []
    fine = message(1)
    fine["record"]["text"] = "a\x00b"
    assert site.post(SINGLE, fine).status == 200


def test_a_message_as_sequin_sends_it_is_taken(site: Site, state: RunState) -> None:
    sequins = {
        "record": {"id": 1, "text": "x"},
        "changes": {"text": "w"},
        "action": "update",
        "metadata": {
            "table_schema": "public",
            "table_name": "posts",
            "commit_timestamp": "2026-10-28T21:39:21.127470Z",
            "commit_lsn": 123456790,
            "commit_idx": 1,
            "database_name": "shop",
            "transaction_annotations": {"user": 1},
            "sink": {"id": "9b7f…", "name": "posts", "annotations": {}},
        },
        "ack_id": "MTIz",
    }
    for path in (SINGLE, BATCH):
        for body in (sequins, {"data": [sequins]}):
            assert site.post(path, body).status == 200
    assert state.rows("SELECT concurrency_key FROM triggerkit.runs WHERE items = 1") == [
        "route_batch",
        "route_batch",
    ]
