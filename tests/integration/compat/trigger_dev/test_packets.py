"""Payloads that the SDK stores apart: the address that it is told, and what may be put there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from tests.integration.compat.compat_site import READ_KEY, CompatSite, compat_site
from tests.integration.run_state import RunState
from tests.integration.serving import Answer
from triggerkit import task
from triggerkit.compat.trigger_dev.given import MAX_BODY_BYTES
from triggerkit.compat.trigger_dev.payloads import packets

TRIGGER = "/api/v1/tasks/count-packet/trigger"
WHERE = "/api/v2/packets/trigger%2Fpacket_1%2Fpayload.json"


@task
def count_packet(given: list[int]) -> int:
    return len(given)


@pytest.fixture
def site(state: RunState) -> Iterator[CompatSite]:
    with compat_site(state.settings, [count_packet]) as site:
        yield site


def put(site: CompatSite, address: str, body: bytes, kind: str = "application/json") -> Answer:
    """Put a packet as the SDK does: without the key."""
    parts = urlsplit(address)
    path = f"{parts.path}?{parts.query}"
    return site.site.request("PUT", path, body, {"content-type": kind})


def stored(site: CompatSite, body: bytes, kind: str = "application/json") -> str:
    told = site.done("PUT", WHERE)
    assert put(site, told["presignedUrl"], body, kind).status == 200
    return str(told["storagePath"])


def triggering(packet: object) -> dict[str, Any]:
    return {"payload": packet, "options": {"payloadType": "application/store"}}


def test_a_payload_that_is_stored_apart_is_that_of_the_run(site: CompatSite) -> None:
    packet = stored(site, b"[1, 2, 3]")
    run = site.done("POST", TRIGGER, triggering(packet))
    assert site.done("GET", f"/api/v3/runs/{run['id']}")["payload"] == [1, 2, 3]
    packed = orjson.dumps({"json": ["7"], "meta": {"values": {"0": ["bigint"]}}})
    other = stored(site, packed, "application/super+json; charset=utf-8")
    run = site.done("POST", TRIGGER, triggering(other))
    assert site.done("GET", f"/api/v3/runs/{run['id']}")["payload"] == [7]


def test_the_address_is_the_one_that_the_caller_uses(state: RunState) -> None:
    with compat_site(state.settings, [count_packet]) as site:
        assert site.done("PUT", WHERE)["presignedUrl"].startswith(f"{site.trigger_dev}/packets/")
    public = "https://app.example.com/below"
    with compat_site(state.settings, [count_packet], triggerkit_public_url=public) as site:
        told = site.done("PUT", WHERE)["presignedUrl"]
        assert told.startswith(f"{public}/compat/trigger.dev/packets/packet_")


def test_one_that_comes_again_takes_the_place_of_the_first(site: CompatSite) -> None:
    told = site.done("PUT", WHERE)
    assert put(site, told["presignedUrl"], b"[1]").status == 200
    assert put(site, told["presignedUrl"], b"[1, 2]").status == 200
    run = site.done("POST", TRIGGER, triggering(told["storagePath"]))
    assert site.done("GET", f"/api/v3/runs/{run['id']}")["payload"] == [1, 2]


def test_an_address_that_nobody_was_told_takes_nothing(
    site: CompatSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = site.done("PUT", WHERE)["presignedUrl"]
    given = parse_qs(urlsplit(told).query)
    other = told.replace("packet_", "packet_0", 1)
    later = told.replace(given["until"][0], str(int(given["until"][0]) + 9999))
    for address in (
        other,
        later,
        told.partition("?")[0],
        told.replace("until=", "until=x"),
        told[:-1],
    ):
        assert put(site, address, b"[1]").status == 401
    assert site.site.request("GET", urlsplit(told).path + "?" + urlsplit(told).query).status == 401
    monkeypatch.setattr(packets, "OPEN_S", -1)
    assert put(site, site.done("PUT", WHERE)["presignedUrl"], b"[1]").status == 401
    reading = {"authorization": f"Bearer {READ_KEY}"}
    assert site.sdk("PUT", WHERE, **reading).status == 403
    assert site.sdk("PUT", WHERE, authorization="Bearer x").status == 401


@pytest.mark.parametrize("packet", ["packet_x", "", 7, None, ["packet_x"], "../packet"])
def test_what_is_not_stored_is_told(site: CompatSite, packet: object) -> None:
    answer = site.sdk("POST", TRIGGER, triggering(packet))
    assert (answer.status, "no payload is stored as" in answer.json["error"]) == (422, True)


def test_a_packet_larger_than_a_payload_may_be_is_refused(site: CompatSite) -> None:
    told = site.done("PUT", WHERE)["presignedUrl"]
    answer = put(site, told, b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status, "larger than" in answer.json["error"]) == (413, True)
    assert put(site, told, b"\xff").status == 400
    for body in (b"{", b""):
        packet = stored(site, body)
        assert site.sdk("POST", TRIGGER, triggering(packet)).status == 422


def test_items_of_a_batch_may_be_stored_apart_within_a_bound(
    site: CompatSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = stored(site, b"[1, 2, 3]")
    items = [{"index": n, "task": "count_packet", **triggering(packet)} for n in range(2)]
    items[1] = {"index": 1, "task": "count_packet", "payload": [1]}
    lines = b"".join(orjson.dumps(item) + b"\n" for item in items)
    path = f"/api/v3/batches/{site.done('POST', '/api/v3/batches', {'runCount': 2})['id']}/items"
    monkeypatch.setattr(packets, "MAX_ITEMS_BYTES", 8)
    assert site.sdk("POST", path, lines).status == 413
    monkeypatch.setattr(packets, "MAX_ITEMS_BYTES", 9)
    assert site.done("POST", path, lines)["itemsAccepted"] == 2
    runs = site.done("GET", "/api/v1/runs")["data"]
    payloads = [site.done("GET", f"/api/v3/runs/{run['id']}")["payload"] for run in runs]
    assert sorted(payloads) == [[1], [1, 2, 3]]


def test_packets_are_forgotten_after_a_day(
    state: RunState, site: CompatSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "KEEP_S", -3600)
    stored(site, b"[1]")
    last = stored(site, b"[2]")
    [[kept]] = state.connection.execute("SELECT id FROM triggerkit.trigger_dev_packets").fetchall()
    assert kept == last
