"""Sequin's pull API, as its clients call it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.compat.compat_site import CompatSite, compat_site
from tests.integration.consumers.pull.pulling import pulling
from triggerkit import Change
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

PULL = "sequin/api/http_pull_consumers/items"


def shout(change: Change[Any]) -> Any:
    return ["made of", change.record["id"]]


def calls(site: CompatSite, method: str, path: str, body: Any = None) -> Any:
    answer = site.call(method, path, body)
    assert answer.status == 200, answer
    return answer.json


def test_messages_are_received_by_get_and_post_acknowledged_and_handed_back(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        definition = changes("items", annotations={"team": "orders"})
        async with pulling(settings.state_dsn, definition) as pull:
            await pull.log([1, 2, 3])
            await asyncio.to_thread(exchange, settings)

    def exchange(settings: Settings) -> None:
        with compat_site(settings) as site:
            received = calls(site, "GET", f"{PULL}/receive?batch_size=2&wait_for=0")["data"]
            received += calls(site, "POST", f"{PULL}/receive", {"batch_size": 2})["data"]
            assert [list(one) for one in received] == [["ack_id", "data"]] * 3
            assert list(received[0]["data"]) == ["record", "changes", "action", "metadata"]
            assert sorted(one["data"]["record"]["id"] for one in received) == [1, 2, 3]
            metadata = received[0]["data"]["metadata"]
            assert metadata["database_name"] == metadata["database"]["name"]
            assert metadata["consumer"]["annotations"] == {"team": "orders"}
            first, *others = [one["ack_id"] for one in received]
            done = calls(site, "POST", f"{PULL}/ack", {"ack_ids": others})
            assert done == {"success": True}
            assert calls(site, "POST", f"{PULL}/nack", {"ack_ids": [first]}) == {"success": True}
            [again] = calls(site, "POST", f"{PULL}/receive", {"max_batch_size": 10})["data"]
            assert again["data"] == received[0]["data"]
            stream = "sequin/api/sequin_streams/items"
            assert calls(site, "POST", f"{stream}/ack", {"ack_ids": [again["ack_id"]]})
            assert calls(site, "GET", f"{stream}/receive") == {"data": []}

    asyncio.run(scenario())


def test_what_a_transform_made_is_the_data(settings: Settings) -> None:
    async def scenario() -> None:
        definition = changes("items", transform=shout)
        async with pulling(settings.state_dsn, definition) as pull:
            await pull.log([7])
            await asyncio.to_thread(exchange)

    def exchange() -> None:
        with compat_site(settings) as site:
            body = {"wait_for": "5s"}
            [one] = calls(site, "POST", f"{PULL}/receive", body)["data"]
            assert one["data"] == ["made of", 7]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "receive", b"{", 400),
        ("POST", "receive", {"batch_size": 0}, 422),
        ("POST", "receive", {"wait_for": "soon"}, 422),
        ("POST", "receive", {"colour": 1}, 422),
        ("GET", "receive?batch_size=x", None, 422),
        ("GET", "receive?wait_for=1h", None, 422),
        ("POST", "ack", {}, 422),
        ("POST", "receive", {}, 404),
    ],
)
def test_what_is_wrong_is_told(
    settings: Settings, method: str, path: str, body: Any, status: int
) -> None:
    with compat_site(settings) as site:
        answer = site.call(method, f"{PULL}/{path}", body)
        assert (answer.status, "error" in answer.json) == (status, True), answer
        assert site.call(method, f"{PULL}/{path}", body, authorization="Bearer x").status == 401
