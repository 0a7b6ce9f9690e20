"""Signed requests to the webhook route: accepted like a bearer, and refused without a word."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from tests.integration.run_state import RunState
from tests.integration.serving import AUTHORIZED, Site, message, serving
from tests.integration.worker_thread import Row
from triggerkit import Change, rows, task
from triggerkit.settings import Settings
from triggerkit.signature import TOLERANCE_S, new_secret, sign
from triggerkit.tasks.receive.body import MAX_BODY_BYTES
from triggerkit.web.application import Application
from triggerkit.web.webhook import TEST_HEADER

PATH = "/api/signed-single"

OLD, NEW, STRANGERS = new_secret(), new_secret(), new_secret()


@task(on=rows("public.posts"))
def signed_single(change: Change[Row]) -> None: ...


@pytest.fixture
def site(settings: Settings, state: RunState) -> Iterator[Site]:
    update = {"triggerkit_webhook_signing_secret": SecretStr(f"{NEW},{OLD}")}
    with serving(Application(settings.model_copy(update=update), [signed_single], None)) as site:
        yield site


def signed(body: bytes, *, secret: str = NEW, off_s: int = 0, **given: str) -> dict[str, str]:
    at = int(time.time()) + off_s
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": sign([secret], "msg_1", at, body),
        **{name.replace("_", "-"): value for name, value in given.items()},
    }


def statuses(site: Site, *requests: tuple[Any, dict[str, str]]) -> list[int]:
    return [site.post(PATH, body, headers, authorized=False).status for body, headers in requests]


def test_a_signature_by_either_secret_starts_a_run_without_a_bearer(
    site: Site, state: RunState
) -> None:
    for number, secret in enumerate((OLD, NEW), 1):
        body = orjson.dumps(message(number))
        assert statuses(site, (body, signed(body, secret=secret))) == [200]
    assert len(state.statuses()) == 2


def test_a_signature_of_the_library_is_one(site: Site, state: RunState) -> None:
    body, now = orjson.dumps(message(1)), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(NEW).sign("msg_2", now, body.decode()),
    }
    assert statuses(site, (body, headers)) == [200]


def test_every_other_signature_gets_the_answer_of_a_missing_one(
    site: Site, state: RunState
) -> None:
    body = orjson.dumps(message(1))
    wrong: list[tuple[Any, dict[str, str]]] = [
        (body, {}),
        (body, signed(body, secret=STRANGERS)),
        (body + b" ", signed(body)),
        (body, signed(body, webhook_id="msg_2")),
        (body, signed(body, webhook_id="")),
        (body, signed(body, webhook_id="ümlaut")),
        (body, signed(body, webhook_timestamp=str(int(time.time()) - 1))),
        (body, signed(body, webhook_timestamp="soon")),
        (body, signed(body, off_s=-TOLERANCE_S - 5)),
        (body, signed(body, off_s=TOLERANCE_S + 5)),
        (body, signed(body, webhook_signature="v1")),
        (body, signed(body, webhook_signature="v1,ü")),
        (body, signed(body, webhook_signature="")),
        (body, signed(body, authorization="Bearer wrong", webhook_signature="v1,AAAA")),
        # Malformed beyond the signature: what is wrong with it is not told to a stranger.
        (b"{", signed(body)),
        (b"\xff", signed(body)),
        (iter([b" " * 65536] * (MAX_BODY_BYTES // 65536 + 1)), signed(body)),
        (body, signed(body, content_type="text/plain")),
        (body, signed(body, content_encoding="br")),
        (body, signed(body, triggerkit_test="1", webhook_id="msg_2")),
    ]
    for sent, headers in wrong:
        answer = site.post(PATH, sent, headers, authorized=False)
        assert (answer.status, answer.json) == (401, {"error": "Unauthorized"}), headers
        assert answer.headers["www-authenticate"] == "Bearer"
    assert state.statuses() == []


def test_without_a_signature_or_near_its_time_no_body_is_waited_for(site: Site) -> None:
    for headers in ({}, signed(b"", off_s=-3600), signed(b"", webhook_id="a.b")):
        unsent = {"content-length": "1000000", "content-type": "application/json", **headers}
        assert site.request("POST", PATH, None, unsent).status == 401


def test_a_right_signature_of_a_wrong_body_is_told_what_is_wrong(site: Site) -> None:
    assert statuses(site, (b"{", signed(b"{")), (b"{}", signed(b"{}"))) == [400, 422]


def test_what_is_signed_is_the_body_before_it_was_compressed(site: Site, state: RunState) -> None:
    body = orjson.dumps(message(1))
    headers = signed(body, content_encoding="gzip")
    assert statuses(site, (gzip.compress(body), headers)) == [200]


def test_a_right_bearer_needs_no_signature_even_beside_a_wrong_one(site: Site) -> None:
    body = orjson.dumps(message(1))
    headers = {**signed(body, secret=STRANGERS), **AUTHORIZED}
    assert statuses(site, (body, headers)) == [200]


def test_a_test_is_answered_and_starts_nothing(site: Site, state: RunState) -> None:
    body = b'{"record": null, "changes": null, "action": "test", "metadata": {}}'
    for headers in (AUTHORIZED, signed(body)):
        answer = site.post(PATH, body, {**headers, TEST_HEADER: "1"}, authorized=False)
        assert (answer.status, answer.json) == (200, {"test": True})
    assert statuses(site, (body, {TEST_HEADER: "1"})) == [401]
    assert state.statuses() == []


def test_where_only_a_signing_secret_is_set_no_bearer_opens(
    settings: Settings, state: RunState
) -> None:
    update = {
        "triggerkit_webhook_secret": None,
        "triggerkit_webhook_signing_secret": SecretStr(NEW),
    }
    body = orjson.dumps(message(1))
    with serving(Application(settings.model_copy(update=update), [signed_single], None)) as site:
        assert statuses(site, (body, AUTHORIZED), (body, {"authorization": "Bearer "})) == [401] * 2
        assert statuses(site, (body, signed(body))) == [200]
