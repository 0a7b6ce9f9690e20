"""Triggering tasks through the API: payloads, options, duplicates, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from tests.integration.run_state import RunState
from tests.integration.web.api.described import ApiSite, api
from tests.integration.worker_thread import working
from triggerkit import Change, task
from triggerkit.testing import fake_message


class Order(BaseModel):
    """A payload."""

    number: int


@task(name="api_pay")
def pay(order: Order) -> int:
    """Return the number."""
    return order.number


@task(name="api_tidy")
def tidy() -> None:
    """Take nothing."""


@task(name="api_index")
def index(batch: list[Change[dict[str, Any]]]) -> int:
    """Count."""
    return len(batch)


@pytest.fixture
def site(triggers: RunState) -> Iterator[ApiSite]:
    with api(triggers.settings, [pay, tidy, index]) as site:
        yield site


def test_a_task_is_triggered_and_its_run_executes(triggers: RunState, site: ApiSite) -> None:
    handles = [
        site.done("POST", "/tasks/api_pay/trigger", {"payload": {"number": 7}}),
        site.done("POST", "/tasks/api_tidy/trigger", {}),
        site.done(
            "POST", "/tasks/api_index/trigger", {"payload": {"data": [fake_message({"id": 1})]}}
        ),
    ]
    assert [handle["task"] for handle in handles] == ["api_pay", "api_tidy", "api_index"]
    with working(triggers, pay, tidy, index):
        rows = triggers.wait_for_status("completed", *(handle["id"] for handle in handles))
    assert [row["output"] for row in rows] == ["7", "null", "1"]


def test_options_are_those_of_python(triggers: RunState, site: ApiSite) -> None:
    options = {
        "delay": 60,
        "ttl": 3600,
        "queue": "slow",
        "max_attempts": 9,
        "concurrency_key": "c",
        "idempotency_key": "i",
        "priority": 5,
        "tags": ["a"],
        "metadata": {"b": 1},
    }
    body = {"payload": {"number": 7}, "options": options}
    first = site.done("POST", "/tasks/api_pay/trigger", body)
    assert site.done("POST", "/tasks/api_pay/trigger", body) == {**first, "duplicate": True}
    run = triggers.run(first["id"])
    assert (run["status"], run["queue"], run["max_attempts"]) == ("delayed", "slow", 9)
    assert (run["concurrency_key"], run["idempotency_key"], run["priority"]) == ("c", "i", 5)
    assert (run["tags"], run["metadata"]) == (["a"], {"b": 1})
    debounce = {"key": "k", "delay": 60, "maximum": 90}
    body = {"payload": {"number": 1}, "options": {"debounce": debounce}}
    one, other = (site.done("POST", "/tasks/api_pay/trigger", body) for _ in range(2))
    assert one["id"] == other["id"]


def test_many_are_triggered_with_options_of_their_own(triggers: RunState, site: ApiSite) -> None:
    items = [
        {"payload": {"number": 1}},
        {"payload": {"number": 2}, "options": {"delay": 60, "idempotency_key": "two"}},
        {"payload": {"number": 2}, "options": {"idempotency_key": "two"}},
    ]
    data = site.done("POST", "/tasks/api_pay/trigger-many", {"items": items})["data"]
    assert [handle["duplicate"] for handle in data] == [False, False, True]
    assert triggers.statuses() == ["queued", "delayed"]


@pytest.mark.parametrize(
    ("path", "body", "status", "loc"),
    [
        ("/tasks/none/trigger", {}, 404, None),
        ("/tasks/api_pay/trigger", {"payload": {"number": "x"}}, 422, ["payload", "number"]),
        ("/tasks/api_tidy/trigger", {"payload": 1}, 422, ["payload"]),
        ("/tasks/api_pay/trigger", {"options": {"colour": 1}}, 422, ["options", "colour"]),
        ("/tasks/api_pay/trigger", {"payload": {"number": 1}, "options": {"queue": ""}}, 422, None),
        (
            "/tasks/api_pay/trigger",
            {"payload": {"number": 1}, "options": {"max_attempts": 0}},
            422,
            None,
        ),
        ("/tasks/api_pay/trigger-many", {"items": []}, 422, ["items"]),
        (
            "/tasks/api_pay/trigger-many",
            {"items": [{"payload": {"number": 1}}, {"payload": {}}]},
            422,
            ["payload", 1, "number"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_makes_no_run(
    triggers: RunState,
    site: ApiSite,
    path: str,
    body: dict[str, Any],
    status: int,
    loc: list[Any] | None,
) -> None:
    answer = site.call("POST", path, body)
    assert answer.status == status
    if loc is not None:
        assert answer.json["detail"][0]["loc"] == loc
    assert triggers.statuses() == []
