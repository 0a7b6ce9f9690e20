"""Sequin's pull API, as its clients call it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
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


def test_whatever_is_acknowledged_or_asked_for_is_answered_in_words(settings: Settings) -> None:
    async def scenario() -> None:
        async with pulling(settings.state_dsn, changes("items")) as pull:
            await pull.log([1, 2])
            await asyncio.to_thread(exchange)

    def exchange() -> None:
        with compat_site(settings) as site:
            [one] = calls(site, "GET", f"{PULL}/receive?max_batch_size=1")["data"]
            for verb in ("ack", "nack"):
                odd = ["x", "", "0.x.1", "\u00e9.", "99.a.1", "0.x." + "9" * 5000, "0.a\x00.1"]
                answer = calls(site, "POST", f"{PULL}/{verb}", {"ack_ids": odd})
                assert (answer["success"], sorted(answer["stale"])) == (True, sorted(odd))
            ids = {"ack_ids": [one["ack_id"], one["ack_id"]]}
            assert calls(site, "POST", f"{PULL}/ack", ids) == {"success": True}
            again = calls(site, "POST", f"{PULL}/ack", ids)
            assert again == {"success": True, "stale": ids["ack_ids"]}
            [other] = calls(site, "POST", f"{PULL}/receive", {"batch_size": "10"})["data"]
            assert other["data"]["record"]["id"] != one["data"]["record"]["id"]
            for body in ODD_BODIES:
                for path in ("receive", "ack", "nack"):
                    answer = site.call("POST", f"{PULL}/{path}", body)
                    assert (400 <= answer.status < 500, "error" in answer.json) == (True, True), (
                        path,
                        body,
                        answer,
                    )
            for query in ODD_QUERIES:
                answer = site.call("GET", f"{PULL}/receive?{query}")
                assert (answer.status, "error" in answer.json) == (422, True), (query, answer)
            for name in ("a%20b", "%00", "x" * 2000):
                answer = site.call("POST", f"sequin/api/http_pull_consumers/{name}/receive", {})
                assert (answer.status in (404, 422), "error" in answer.json) == (True, True), answer

    asyncio.run(scenario())


ODD_BODIES: tuple[Any, ...] = (
    b"{", b"[]", b"null", b"7", b"\xff", b"[" * 5000, {"batch_size": 1001}, {"batch_size": -1},
    {"batch_size": 1.5}, {"batch_size": None}, {"batch_size": [1]}, {"batch_size": "many"},
    {"wait_for": -1}, b'{"wait_for": 1e30}', {"wait_for": "1h"}, {"wait_for": None},
    {"ack_ids": []}, {"ack_ids": [7]}, {"ack_ids": "x"}, {"ack_ids": ["x"] * 10_001},
)  # fmt: skip

ODD_QUERIES = (
    "batch_size=0", "batch_size=%00", "batch_size=" + "9" * 5000, "wait_for=" + "9" * 5000,
    "wait_for=-1", "wait_for=1e9", "colour=1",
)  # fmt: skip


def test_several_callers_at_once_have_each_message_once_and_those_of_a_row_in_order(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pulling(settings.state_dsn, changes("items")) as pull:
            await pull.log([row for _ in range(20) for row in range(10)])
            await asyncio.to_thread(exchange)

    def exchange() -> None:
        with compat_site(settings) as site, ThreadPoolExecutor(6) as threads:
            seen = list(chain.from_iterable(threads.map(lambda n: caller(site, n), range(6))))
        versions: dict[int, list[tuple[int, int]]] = {}
        for at, row, version in sorted(seen):
            versions.setdefault(row, []).append((at, version))
        for found in versions.values():
            assert [version for _, version in found] == sorted(version for _, version in found)
        assert len(seen) == len({(row, version) for _, row, version in seen}) == 200

    asyncio.run(scenario())


def caller(site: CompatSite, number: int) -> list[tuple[int, int, int]]:
    """Take what is there until nothing is. Every seventh message is handed back the first time, and
    with it what came behind it of its row."""
    done: list[tuple[int, int, int]] = []
    handed_back: set[tuple[int, int]] = set()
    while True:
        body = {"batch_size": 5, "wait_for": 1000}
        received = calls(site, "POST", f"{PULL}/receive", body)["data"]
        if not received:
            return done
        behind: set[int] = set()
        for one in received:
            row, version = (int(one["data"]["record"][name]) for name in ("id", "v"))
            is_first = version % 7 == number and (row, version) not in handed_back
            is_back = is_first or row in behind
            if is_back:
                behind.add(row)
                handed_back.add((row, version))
            else:
                done.append((time.monotonic_ns(), row, version))
            verb = "nack" if is_back else "ack"
            answer = calls(site, "POST", f"{PULL}/{verb}", {"ack_ids": [one["ack_id"]]})
            assert answer == {"success": True}
