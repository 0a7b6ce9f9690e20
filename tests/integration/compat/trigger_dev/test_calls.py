"""The API of Trigger.dev's SDK as others call it: repeated, at odds, wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.integration.compat.compat_site import READ_KEY, CompatSite, compat_site
from tests.integration.run_state import RunState
from triggerkit import Tick, task
from triggerkit.runs.declared import DeclaredRuns, apply_runs
from triggerkit.runs.schedules import DueSchedules
from triggerkit.state.connect import connect


@task
def sum_up(numbers: list[int]) -> int:
    return sum(numbers)


@task
def greet(tick: Tick) -> None:
    pass


@task(name="with-dashes")
def with_dashes() -> None:
    pass


@task(name="with_dashes")
def with_underscores() -> None:
    pass


TRIGGER = "/api/v1/tasks/sum-up/trigger"


@pytest.fixture
def site(state: RunState) -> Iterator[CompatSite]:
    with compat_site(state.settings, [sum_up, greet, with_underscores, with_dashes]) as site:
        yield site


def lines(*items: Any) -> bytes:
    return b"".join(orjson.dumps(item) + b"\n" for item in items)


def test_a_name_with_dashes_is_that_task_or_the_python_name(site: CompatSite) -> None:
    for name in ("with-dashes", "with_dashes"):
        made = site.done("POST", f"/api/v1/tasks/{name}/trigger", {})
        assert site.done("GET", f"/api/v3/runs/{made['id']}")["taskIdentifier"] == name
        listed = site.done("GET", f"/api/v1/runs?filter[taskIdentifier]={name}")["data"]
        assert [run["id"] for run in listed] == [made["id"]]
    run = site.done("POST", TRIGGER, {"payload": [1, 2]})
    shown = site.done("GET", f"/api/v3/runs/{run['id']}")
    assert (shown["taskIdentifier"], shown["payload"]) == ("sum_up", [1, 2])


def test_a_request_that_is_sent_again_makes_no_second_run(
    state: RunState, site: CompatSite
) -> None:
    header = {"x_trigger_request_idempotency_key": "one"}
    first, second = (site.done("POST", TRIGGER, {"payload": [1]}, **header) for _ in range(2))
    assert first == second
    assert first["isCached"] is False
    assert "idempotencyKey" not in site.done("GET", f"/api/v3/runs/{first['id']}")
    site.done("POST", TRIGGER, {"payload": [1]})
    assert len(state.statuses()) == 2


def test_a_replay_that_is_sent_again_makes_no_second_run(state: RunState, site: CompatSite) -> None:
    run = site.done("POST", TRIGGER, {"payload": [1]})
    path = f"/api/v1/runs/{run['id']}/replay"
    header = {"x_trigger_request_idempotency_key": "one"}
    first, second = (site.done("POST", path, **header) for _ in range(2))
    assert first == second
    assert "idempotencyKey" not in site.done("GET", f"/api/v3/runs/{first['id']}")
    assert site.done("POST", path)["id"] != first["id"]
    assert len(state.statuses()) == 3


def test_a_replay_has_the_options_that_it_is_given_and_its_own_else(site: CompatSite) -> None:
    options = {"tags": ["a"], "metadata": {"a": 1}, "priority": 3, "concurrencyKey": "k" * 600}
    run = site.done("POST", TRIGGER, {"payload": [1], "options": options})
    path = f"/api/v1/runs/{run['id']}/replay"

    def replayed(**body: Any) -> Any:
        made = site.done("POST", path, body)
        return site.done("GET", f"/api/v3/runs/{made['id']}")

    same = replayed()
    assert (same["payload"], same["tags"], same["metadata"]) == ([1], ["a"], {"a": 1})
    other = replayed(payload=[2, 3], tags=["b"], metadata={}, delay="1h", queue="q", priority=9)
    assert (other["payload"], other["tags"], other["metadata"]) == ([2, 3], ["b"], {})
    assert other["status"] == "DELAYED"
    packed = orjson.dumps({"json": ["7"], "meta": {"values": {"0": ["bigint"]}}}).decode()
    super_json = replayed(payload=packed, payloadType="application/super+json", ttl=60)
    assert (super_json["payload"], super_json["tags"]) == ([7], ["a"])
    keyed = replayed(concurrencyKey="k", idempotencyKey="once", idempotencyKeyTTL="1d")
    assert keyed["id"] == replayed(idempotencyKey="once")["id"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"payload": ["x"]}, "0: "),
        ({"region": "eu"}, "region is not offered"),
        ({"machine": "micro"}, "machine is not offered"),
        ({"colour": 1}, "colour: is not known"),
        ({"debounce": {"key": "k", "delay": "1s"}}, "debounce works only with"),
        ({"queue": "a b"}, "queue"),
        ({"maxAttempts": 0}, "max_attempts"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(
    state: RunState, site: CompatSite, body: dict[str, Any], told: str
) -> None:
    run = site.done("POST", TRIGGER, {"payload": [1]})
    answer = site.sdk("POST", f"/api/v1/runs/{run['id']}/replay", body)
    assert (answer.status, told in answer.json["error"]) == (422, True), answer
    assert len(state.statuses()) == 1


@pytest.mark.parametrize("status", ["failed", "crashed", "timed_out", "expired"])
def test_a_key_whose_run_failed_makes_another_one(
    state: RunState, site: CompatSite, status: str
) -> None:
    body = {"payload": [1], "options": {"idempotencyKey": "k" * 600}}
    header = {"x_trigger_request_idempotency_key": "one"}
    first = site.done("POST", TRIGGER, body, **header)
    assert site.done("POST", TRIGGER, body) == {**first, "isCached": True}
    finish(state, status)
    # The same request, whose answer was lost.
    assert site.done("POST", TRIGGER, body, **header)["id"] == first["id"]
    second = site.done("POST", TRIGGER, body)
    assert (second["id"] != first["id"], second["isCached"]) == (True, False)
    assert site.done("POST", TRIGGER, body) == {**second, "isCached": True}


@pytest.mark.parametrize("status", ["completed", "canceled"])
def test_a_key_whose_run_ended_otherwise_stays_with_it(
    state: RunState, site: CompatSite, status: str
) -> None:
    body = {"payload": [1], "options": {"idempotencyKey": "k"}}
    first = site.done("POST", TRIGGER, body)
    finish(state, status)
    assert site.done("POST", TRIGGER, body) == {**first, "isCached": True}


def finish(state: RunState, status: str) -> None:
    """Let every run have ended."""
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = %s, finished_at = clock_timestamp(), gate = NULL",
        [status],
    )


def test_items_whose_runs_failed_make_no_others_when_they_are_sent_again(
    state: RunState, site: CompatSite
) -> None:
    items = lines(
        {"index": 0, "task": "sum_up", "payload": [1], "options": {"idempotencyKey": "k"}}
    )

    def batch() -> str:
        made = site.done("POST", "/api/v3/batches", {"runCount": 1})
        return f"/api/v3/batches/{made['id']}/items"

    first = batch()
    site.done("POST", first, items)
    finish(state, "failed")
    state.connection.execute("UPDATE triggerkit.trigger_dev_batches SET runs = NULL")
    assert site.done("POST", first, items)["itemsDeduplicated"] == 1
    assert site.done("POST", batch(), items)["itemsAccepted"] == 1
    assert len(state.statuses()) == 2


def test_items_of_a_batch_that_are_sent_again_make_no_second_runs(
    state: RunState, site: CompatSite
) -> None:
    batch = site.done("POST", "/api/v3/batches", {"runCount": 2})
    items = lines(*({"index": n, "task": "sum-up", "payload": [n]} for n in range(2)))
    path = f"/api/v3/batches/{batch['id']}/items"
    first, again = (
        site.done("POST", path, items, content_type="application/x-ndjson") for _ in range(2)
    )
    assert (first["sealed"], first["itemsAccepted"], first["itemsDeduplicated"]) == (True, 2, 0)
    assert (again["sealed"], again["itemsAccepted"], again["itemsDeduplicated"]) == (True, 0, 2)
    # As if the process had died between the runs and the note of them.
    state.connection.execute(
        "UPDATE triggerkit.trigger_dev_batches SET runs = NULL, sealed_at = NULL"
    )
    third = site.done("POST", path, items)
    assert (third["itemsAccepted"], third["itemsDeduplicated"]) == (0, 2)
    assert len(state.statuses()) == 2


def test_a_batch_whose_items_never_came_is_not_taken_for_done(site: CompatSite) -> None:
    body = {"runCount": 1, "idempotencyKey": "k"}
    first, second = (site.done("POST", "/api/v3/batches", body) for _ in range(2))
    assert (first["id"], second["isCached"]) == (second["id"], False)
    path = f"/api/v3/batches/{first['id']}/items"
    site.done("POST", path, lines({"index": 0, "task": "sum_up", "payload": [1]}))
    assert site.done("POST", "/api/v3/batches", body)["isCached"] is True


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([{"index": 0, "task": "sum_up", "payload": [1]}], "2 items"),
        ([{"index": 0, "task": "sum_up"}, {"index": 0, "task": "sum_up"}], "2 items"),
        ([{"index": 0, "task": "x"}, {"index": 1, "task": "sum_up"}], "no task is named"),
        (
            [
                {"index": 0, "task": "sum_up", "payload": [1]},
                {"index": 1, "task": "sum_up", "payload": ["x"]},
            ],
            "1.0: ",
        ),
        (
            [
                {"index": 0, "task": "sum_up", "payload": [1]},
                {
                    "index": 1,
                    "task": "sum_up",
                    "payload": [1],
                    "options": {"debounce": {"key": "k", "delay": "1s"}},
                },
            ],
            "item 1: debounce",
        ),
    ],
)
def test_of_a_batch_that_does_not_fit_nothing_runs(
    state: RunState, site: CompatSite, items: list[Any], told: str
) -> None:
    batch = site.done("POST", "/api/v3/batches", {"runCount": 2})
    answer = site.sdk("POST", f"/api/v3/batches/{batch['id']}/items", lines(*items))
    assert answer.status in (404, 422)
    assert told in answer.json["error"]
    assert answer.headers["x-should-retry"] == "false"
    assert state.statuses() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("POST", TRIGGER, b"{", 400, "malformed JSON"),
        ("POST", TRIGGER, b'{"payload": [1], "colour": 1}', 422, "colour: is not known here"),
        ("POST", TRIGGER, b'{"payload": ["x"]}', 422, "0: "),
        ("POST", TRIGGER, b'{"payload": [1], "options": {"queue": {"name": "a b"}}}', 422, "queue"),
        (
            "POST",
            TRIGGER,
            b'{"payload": [1], "options": {"tags": ["' + b"x" * 999 + b'"]}}',
            422,
            "tag",
        ),
        ("POST", "/api/v3/batches", b'{"runCount": 1001}', 422, "runCount"),
        ("POST", "/api/v3/batches", b'{"runCount": 0}', 422, "runCount"),
        ("POST", "/api/v3/batches/batch_x/items", b"{}\n", 404, "no batch has the id 'batch_x'"),
        ("GET", "/api/v2/batches/batch_x", None, 404, "no batch has the id"),
        ("GET", "/api/v3/runs/run_x", None, 404, "no run has the id 'run_x'"),
        ("POST", "/api/v2/runs/run_x/cancel", None, 404, "no run has the id"),
        ("POST", "/api/v1/runs/run_x/replay", None, 404, "no run has the id"),
        ("POST", "/api/v1/runs/run_x/reschedule", b'{"delay": "1h"}', 404, "no run has the id"),
        ("POST", "/api/v1/runs/run_x/reschedule", b'{"delay": "soon"}', 422, "delay: write it as"),
        ("GET", "/api/v1/runs?filter[status]=GONE", None, 422, "'GONE' is not one of"),
        ("GET", "/api/v1/runs?filter[machine]=micro", None, 422, "filter[machine] is not offered"),
        ("GET", "/api/v1/runs?filter[tag]=a,b", None, 422, "one at a time"),
        ("GET", "/api/v1/runs?page[size]=1000", None, 422, "1 to 100"),
        ("GET", "/api/v1/runs?filter[createdAt][from]=x", None, 422, "filter[createdAt][from]"),
        ("GET", "/api/v1/queues?perPage=0", None, 422, "perPage"),
        ("GET", "/api/v1/queues/none?type=custom", None, 404, "no queue is named 'none'"),
        ("GET", "/api/v1/queues/none?type=task", None, 404, "no task is named 'none'"),
        ("POST", "/api/v1/queues/none/pause", b'{"type": "id", "action": "stop"}', 422, "action"),
        ("GET", "/api/v1/schedules/none", None, 404, "no schedule is named"),
        ("GET", "/realtime/v1/runs/run_x?live=true", None, 404, "Realtime is not offered"),
        ("GET", "/realtime/v1/streams/run_x/s", None, 404, "Realtime is not offered"),
        ("GET", "/api/v1/runs/realtime/packets/payload", None, 501, "Realtime is not offered"),
        ("GET", "/api/v1/packets/realtime", None, 501, "Realtime is not offered"),
        ("GET", "/api/v1/runs?filter[batch]=batch_x", None, 404, "no batch has the id"),
        ("POST", "/api/v1/bulk-actions", b"{}", 501, "bulk actions are the dashboard's"),
        ("POST", "/api/v1/idempotencyKeys/k/reset", b"{}", 422, "taskIdentifier"),
        (
            "POST",
            "/api/v1/idempotencyKeys/a%2Fb/reset",
            b'{"taskIdentifier": "sum-up"}',
            404,
            "no run of sum_up has the idempotency key 'a/b'",
        ),
        ("POST", "/api/v1/waitpoints/tokens", b"{}", 501, "waitpoints are not offered"),
        ("POST", "/engine/v1/runs/run_x/wait/duration", b"{}", 501, "waitpoints are not offered"),
        ("PUT", "/api/v1/runs/run_x/metadata", b"{}", 501, "tags and metadata"),
        ("POST", "/api/v2/tasks/batch", b"{}", 501, "sdk 4.3 and later"),
        ("DELETE", "/api/v1/colours", None, 501, "DELETE /api/v1/colours is not offered"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    site: CompatSite, method: str, path: str, body: bytes | None, status: int, told: str
) -> None:
    answer = site.sdk(method, path, body)
    assert (answer.status, told in answer.json["error"]) == (status, True), answer
    assert answer.headers["x-should-retry"] == "false"


def test_another_major_version_of_the_sdk_is_told_so(site: CompatSite) -> None:
    answer = site.sdk("POST", TRIGGER, {"payload": [1]}, trigger_version="3.3.17")
    assert (answer.status, "4, not 3.3.17" in answer.json["error"]) == (400, True)
    site.done("POST", TRIGGER, {"payload": [1]}, trigger_version="4.9.1")


def test_who_has_no_key_is_told_which(site: CompatSite) -> None:
    for authorization in ("", "Bearer wrong", "Basic eDp5"):
        answer = site.sdk("POST", TRIGGER, {"payload": [1]}, authorization=authorization)
        assert answer.status == 401
        assert "TRIGGERKIT_SECRET_KEY" in answer.json["error"]
        assert answer.headers["x-should-retry"] == "false"


def test_the_read_key_looks_and_does_nothing(state: RunState) -> None:
    with compat_site(state.settings, [sum_up], triggerkit_hide_values=True) as site:
        run = site.done("POST", TRIGGER, {"payload": [1, 2]})
        reading = {"authorization": f"Bearer {READ_KEY}"}
        assert site.sdk("POST", TRIGGER, {"payload": [1]}, **reading).status == 403
        shown = site.done("GET", f"/api/v3/runs/{run['id']}", **reading)
        assert (shown["status"], shown["payload"]) == ("QUEUED", None)


def test_a_schedule_that_a_client_made_outlives_apply_and_tells_whom_it_is_for(
    state: RunState, site: CompatSite
) -> None:
    body = {"task": "greet", "cron": "0 3 * * *", "deduplicationKey": "k", "externalId": "ann"}
    made = site.done("POST", "/api/v1/schedules", body)

    async def apply_nothing() -> None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            assert await apply_runs(connection, DeclaredRuns()) == []

    asyncio.run(apply_nothing())
    state.connection.execute(
        "UPDATE triggerkit.schedules SET next_at = clock_timestamp() - interval '1 second'"
    )
    DueSchedules().make_due_runs(state.connection)
    [run] = site.done("GET", "/api/v1/runs")["data"]
    payload = site.done("GET", f"/api/v3/runs/{run['id']}")["payload"]
    assert (payload["schedule"], payload["external_id"]) == (made["id"], "ann")


def test_a_schedule_is_found_by_its_deduplication_key_too(site: CompatSite) -> None:
    body = {"task": "greet", "cron": "0 3 * * *", "deduplicationKey": "k" * 600}
    made = site.done("POST", "/api/v1/schedules", body)
    path = f"/api/v1/schedules/{'k' * 600}"
    assert site.done("GET", path)["id"] == made["id"]
    assert not site.done("POST", f"{path}/deactivate")["active"]
    assert site.done("POST", f"{path}/activate")["active"]
    changed = site.done("PUT", path, {"task": "greet", "cron": "0 4 * * *"})
    assert (changed["id"], changed["generator"]["expression"]) == (made["id"], "0 4 * * *")
    assert site.done("DELETE", path)["id"] == made["id"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cron": "every day"}, "is not a cron expression"),
        ({"timezone": "Mars/Base"}, "there is no time zone"),
        ({"task": "sum_up"}, "takes no parameter then, or a Tick"),
        ({"task": "none"}, "no task is named"),
        ({"deduplicationKey": None}, "deduplicationKey: give one"),
        ({"window": {}}, "window: is not known here"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    site: CompatSite, change: dict[str, Any], told: str
) -> None:
    body = {"task": "greet", "cron": "0 3 * * *", "deduplicationKey": "k", **change}
    answer = site.sdk("POST", "/api/v1/schedules", body)
    assert answer.status in (404, 422)
    assert told in answer.json["error"]
    assert site.done("GET", "/api/v1/schedules")["data"] == []
