"""Whatever a call is sent, it is answered in words: never by 500, and never after long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from tests.integration.compat.compat_site import CompatSite, compat_site
from tests.integration.run_state import RunState
from triggerkit import task
from triggerkit.compat.trigger_dev.site import CALLS

DEEP = b"[" * 5000 + b"]" * 5000

#: Bodies that no call has.
BODIES = (
    b"", b"{", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"\x00", b"NaN", b'{"payload": NaN}',
    b'{"payload": 1e400}', b'{"payload": "\\ud800"}', b'{"payload": "\\u0000"}', DEEP,
    b'{"payload": ' + DEEP + b"}", b'{"payload": 1, "payload": 2}', b'{"options": null}',
    b'{"options": {"payloadType": "application/super+json"}, "payload": "{"}',
    orjson.dumps({
        "options": {"payloadType": "application/super+json"},
        "payload": '{"json": ' + "[" * 900 + "]" * 900 + "}",
    }),
    orjson.dumps({
        "options": {"payloadType": "application/super+json"},
        "payload": '{"json": {"a": 1}, "meta": {"values": {"a": ["map", {"0.0.0": ["set"]}]}}}',
    }),
    b'{"options": {"tags": ["\\u0000"]}}', b'{"options": {"metadata": {"a": "\\u0000"}}}',
    b'{"options": {"idempotencyKey": "\\u0000"}}', b'{"options": {"concurrencyKey": "\\u0000"}}',
    b'{"options": {"idempotencyKey": "k", "debounce": {"key": "k", "delay": "1s"}}}',
    b'{"options": {"debounce": {"key": "\\u0000", "delay": "1s"}}}',
    b'{"options": {"priority": 99999999999999999999}}', b'{"options": {"priority": -5e300}}',
    b'{"options": {"delay": "9999-12-31T23:59:59Z"}}', b'{"options": {"delay": "0001-01-01"}}',
    b'{"options": {"delay": "999999w"}}', b'{"options": {"ttl": 1e300}}',
    b'{"options": {"maxAttempts": -1}}', b'{"options": {"maxAttempts": 99999999999999999999}}',
    b'{"options": {"idempotencyKeyTTL": "999999w", "idempotencyKey": "k"}}',
    b'{"runCount": 1, "idempotencyKey": "\\u0000"}', b'{"runCount": 99999999999999999999}',
    b'{"delay": "999999w"}', b'{"delay": "0001-01-01T00:00:00+23:59"}',
    b'{"type": "custom", "action": "pause"}', b'{"type": "id", "concurrencyLimit": 99999999999}',
    b'{"task": "take_odd", "cron": "* * * * *", "deduplicationKey": "\\u0000"}',
    b'{"task": "take_odd", "cron": "\\u0000", "deduplicationKey": "k"}',
    b'{"task": "take_odd", "cron": "* * * * *", "deduplicationKey": "k", "timezone": "../UTC"}',
    b'{"task": "take_odd", "cron": "* * * * *", "deduplicationKey": "k", "externalId": "\\u0000"}',
    b'{"taskIdentifier": "take_odd", "payload": "\\u0000"}',
    b'{"index": 0, "task": "take_odd"}', b'{"index": 99999999999999999999, "task": "take_odd"}',
    b'{"index": 0, "task": "\\u0000"}', b"{}\n{}\n", b"\n\n\n",
)  # fmt: skip

#: Ids and names that nothing has.
NAMES = (
    "x",
    "..",
    "a b",
    "é",
    "\x00",
    "%00",
    "run_" + "0" * 26,
    "'; --",
    "x" * 2000,
    "task/x",
    "/",
)

QUERIES = (
    "page[after]=x", "page[after]=%00", "page[size]=0", "page[size]=" + "9" * 5000, "page[size]=-1",
    "page[before]=x", "filter[status]=", "filter[status]=,", "filter[tag]=%00", "filter[task]=x",
    "filter[taskIdentifier]=%00", "filter[queue]=task/none", "filter[batch]=%00",
    "filter[createdAt][from]=" + "9" * 400, "filter[createdAt][to]=-1", "filter[isTest]=perhaps",
    "filter[createdAt][period]=999999w", "filter[createdAt][from]=NaN", "page=0&perPage=1",
    "page=1000000&perPage=100", "page=" + "9" * 5000, "type=other", "excludeUtc=x", "live=true",
    "until=x&signature=", "until=" + "9" * 5000 + "&signature=%C3%A9",
)  # fmt: skip


@task
def take_odd(payload: Any = None) -> None:
    pass


@pytest.fixture
def site(state: RunState) -> Iterator[CompatSite]:
    with compat_site(state.settings, [take_odd]) as site:
        yield site


def require_words(site: CompatSite, method: str, path: str, body: bytes | None = None) -> None:
    answer = site.sdk(method, path, body)
    assert answer.status < 500 or answer.status == 501, (method, path[:200], body, answer)
    if answer.status >= 400:
        assert isinstance(answer.json["error"], str), (method, path[:200], answer)
        assert answer.json["error"], (method, path[:200], answer)


def with_name(path: str, name: str) -> str:
    return re.sub(r"\{[^}]+\}", quote(name, safe=""), path)


def test_odd_bodies_names_and_queries_are_answered_in_words(site: CompatSite) -> None:
    for call in CALLS:
        path = _path(site, call.path)
        for body in BODIES if call.method != "GET" else ():
            require_words(site, call.method, path, body)
        for name in NAMES if "{" in call.path else ():
            require_words(site, call.method, with_name(call.path, name), b"{}")
        for query in QUERIES if call.method == "GET" else ():
            require_words(site, "GET", f"{path}?{query}")


def _path(site: CompatSite, template: str) -> str:
    own = {"name": "take_odd", "id": "x", "key": "k"}
    path = re.sub(r"\{(\w+)[^}]*\}", lambda found: own[found[1]], template)
    if "batches/x/items" in path:
        batch = site.done("POST", "/api/v3/batches", {"runCount": 1})
        path = path.replace("/x/", f"/{batch['id']}/")
    return path


def test_odd_methods_and_headers_are_answered_in_words(site: CompatSite) -> None:
    for method in ("OPTIONS", "PATCH", "DELETE"):
        answer = site.sdk(method, "/api/v1/runs")
        assert answer.status == 501
    path = "/api/v1/tasks/take-odd/trigger"
    for headers in (
        {"trigger_version": "x"}, {"trigger_version": ""}, {"content_encoding": "br"},
        {"content_encoding": "gzip"}, {"content_type": "text/html; charset=utf-16"},
        {"x_trigger_request_idempotency_key": "x" * 5000}, {"authorization": "Bearer "},
        {"authorization": "Bearer é".encode().decode("latin-1")}, {"host": "a b"},
    ):  # fmt: skip
        answer = site.sdk("POST", path, b'{"payload": 1}', **headers)
        assert answer.status in (200, 400, 401, 415), (headers, answer)
