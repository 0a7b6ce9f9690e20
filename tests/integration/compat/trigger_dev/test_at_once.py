"""Calls of the SDK that come at the same time, as its retries and several servers make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from tests.integration.compat.compat_site import CompatSite, compat_site
from tests.integration.run_state import RunState
from triggerkit import task

TRIGGER = "/api/v1/tasks/take-at-once/trigger"

ITEMS = 1000


@task
def take_at_once(number: int) -> None:
    pass


@pytest.fixture
def site(state: RunState) -> Iterator[CompatSite]:
    with compat_site(state.settings, [take_at_once]) as site:
        yield site


def at_once(call: Callable[[int], Any], count: int = 8) -> list[Any]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(call, range(count)))


def test_one_request_sent_many_times_at_once_makes_one_run(
    state: RunState, site: CompatSite
) -> None:
    header = {"x_trigger_request_idempotency_key": "one"}
    found = at_once(lambda _: site.done("POST", TRIGGER, {"payload": 1}, **header))
    assert len({one["id"] for one in found}) == 1
    path = f"/api/v1/runs/{found[0]['id']}/replay"
    header = {"x_trigger_request_idempotency_key": "another"}
    replays = at_once(lambda _: site.done("POST", path, **header))
    assert len({one["id"] for one in replays}) == 1
    assert len(state.statuses()) == 2


def test_a_key_whose_run_failed_makes_one_run_at_once(state: RunState, site: CompatSite) -> None:
    body = {"payload": 1, "options": {"idempotencyKey": "k"}}
    first = site.done("POST", TRIGGER, body)
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'failed', finished_at = clock_timestamp(), gate = NULL"
    )
    found = at_once(lambda _: site.done("POST", TRIGGER, body))
    assert len({one["id"] for one in found} | {first["id"]}) == 2
    assert [one["isCached"] for one in found].count(False) == 1


def test_a_full_batch_whose_items_come_several_times_at_once_is_made_once(
    state: RunState, site: CompatSite
) -> None:
    made = at_once(
        lambda _: site.done("POST", "/api/v3/batches", {"runCount": ITEMS, "idempotencyKey": "k"})
    )
    assert len({one["id"] for one in made}) == 1
    path = f"/api/v3/batches/{made[0]['id']}/items"
    lines = [orjson.dumps({"index": n, "task": "take_at_once", "payload": n}) for n in range(ITEMS)]
    broken = [
        *lines[:-1],
        orjson.dumps({"index": ITEMS - 1, "task": "take_at_once", "payload": "x"}),
    ]
    answer = site.sdk("POST", path, b"\n".join(broken))
    assert (answer.status, f"{ITEMS - 1}: " in answer.json["error"]) == (422, True)
    assert state.statuses() == []
    found = at_once(lambda _: site.done("POST", path, b"\n".join(lines)), 3)
    assert sum(one["itemsAccepted"] for one in found) == ITEMS
    assert all(one["sealed"] for one in found)
    batch = site.done("GET", f"/api/v2/batches/{made[0]['id']}")
    assert len(state.statuses()) == len(set(batch["runs"])) == ITEMS
