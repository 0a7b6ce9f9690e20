"""What an answer means, how long a failing endpoint waits, and which addresses are reached."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import formatdate
from ipaddress import ip_network
from typing import Any

import pytest
from standardwebhooks import Webhook

from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.delivery.credentials import Credentials, credentials_of
from triggerkit.delivery.http.network import (
    LOOPBACK,
    check_url,
    is_allowed,
    is_loopback,
    parse_networks,
    reachable,
)
from triggerkit.delivery.push import (
    Answer,
    Push,
    Pusher,
    headers_of,
    of_batch,
    read_answer,
    retry_after,
    traceparent,
)
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, InvalidEndpoint
from triggerkit.settings import Settings
from triggerkit.signature import new_secret
from triggerkit.state.backoff import LONGEST_WAIT_S, backoff_s


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_only_2xx_is_success(status: int) -> None:
    assert read_answer(status, {}, b"").verdict == "delivered"


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_the_endpoint_is_blamed_and_no_item(status: int) -> None:
    assert read_answer(status, {}, b"").verdict == "endpoint_failed"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_may_be_due_to_the_batch(status: int) -> None:
    assert read_answer(status, {}, b"").is_suspect


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 408, 410, 422, 429])
def test_no_other_status_may(status: int) -> None:
    assert not read_answer(status, {}, b"").is_suspect


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_content_is_blamed(status: int) -> None:
    assert read_answer(status, {}, b"").verdict == "content_refused"


def test_410_says_that_the_endpoint_is_gone() -> None:
    assert read_answer(410, {}, b"").verdict == "gone"


def test_failed_items_are_read_from_the_answer() -> None:
    body = b'{"failed": [{"idempotency_key": "k", "error": "no", "retry_after_s": 5}]}'
    (failed,) = read_answer(200, {}, body).failed
    assert (failed.idempotency_key, failed.error, failed.retry_after_s) == ("k", "no", 5)


def test_an_items_error_is_a_line_that_can_be_stored() -> None:
    body = (
        b'{"failed": [{"idempotency_key": "k", "error": "a\\u0000b\\nc\\u001b'
        + b"x" * 9000
        + b'"}]}'
    )
    (failed,) = read_answer(200, {}, body).failed
    assert failed.error.startswith("a\ufffdb c\ufffdxxx")
    assert len(failed.error) == 2000


def test_items_are_read_as_other_libraries_write_them() -> None:
    body = b'{"failed": [{"idempotency_key": "k", "error": "\\ud800", "retry_after_s": NaN}]}'
    (failed,) = read_answer(200, {}, body).failed
    assert (failed.idempotency_key, failed.error, failed.retry_after_s) == ("k", "\ufffd", None)


@pytest.mark.parametrize("seconds", ["-1", "-Infinity", "Infinity", "1e400", '"soon"', "1" * 400])
def test_an_item_asks_for_no_time_that_is_none(seconds: str) -> None:
    body = f'{{"failed": [{{"idempotency_key": "k", "retry_after_s": {seconds}}}]}}'
    (failed,) = read_answer(200, {}, body.encode()).failed
    assert failed.retry_after_s in (None, 0.0)


@pytest.mark.parametrize(
    ("headers", "body", "is_cut"),
    [
        ({}, b'{"failed": []}', True),
        ({}, b"", True),
        ({}, b'{"failed": [{"idempotency_key": "k"', False),
        ({}, b'{"failed": {"idempotency_key": "k"}}', False),
        ({}, b'{"failed": ["k"]}', False),
        ({}, b'{"failed": [{"idempotency_key": 7}]}', False),
        ({}, b'{"failed": [{"id": "k"}]}', False),
        ({}, b'{"failed": 3}', False),
        ({}, b'{"failed": true}', False),
        ({"content-encoding": "gzip"}, b"\x1f\x8b\x08", False),
    ],
)
def test_an_answer_that_may_name_failed_items_and_cannot_be_read_is_no_success(
    headers: dict[str, str], body: bytes, *, is_cut: bool
) -> None:
    answer = read_answer(200, headers, body, is_cut=is_cut)
    assert (answer.verdict, answer.is_unreadable) == ("endpoint_failed", True)
    assert str(answer.error).startswith("answered 200, but ")


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"{}", b'{"failed": []}', b'{"failed": 0}', b'{"failed": null}',
     b'{"result": {"failed": [1]}}', b'["failed"]', b'"failed"'],
)  # fmt: skip
def test_an_answer_that_names_nothing_is_a_success(body: bytes) -> None:
    answer = read_answer(200, {}, body)
    assert (answer.verdict, answer.failed) == ("delivered", ())


def test_an_answer_names_no_items_that_were_not_sent() -> None:
    answer = read_answer(200, {}, b'{"failed": [{"idempotency_key": "k"}]}')
    assert of_batch(answer, ["j", "k"]) is answer
    assert of_batch(answer, ["j"]).is_unreadable


DEEP = b'{"failed": [{"idempotency_key": ' + b"[" * 1000 + b"]" * 1000 + b"}]}"


@pytest.mark.parametrize(
    "body", [b'{"failed": 1}', b'"failed"', b'{"failed": [1]}', b"<failed>", DEEP]
)
def test_an_answer_that_is_none_of_ours_names_no_failed_items(body: bytes) -> None:
    assert read_answer(200, {}, body).failed == ()


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after("2.5") == 2.5
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("nan") is None
    assert retry_after("-7") == 0
    assert retry_after("Mon, 01 Jan 99999999999 00:00:00 GMT") is None
    assert retry_after("Mon, 01 Jan 2024 00:00:00 +240000000000") is None
    in_a_minute = retry_after(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 61


def test_a_date_is_compared_with_the_date_of_the_answer_and_not_with_our_clock() -> None:
    an_hour_ago = time.time() - 3600
    headers = {
        "date": formatdate(an_hour_ago, usegmt=True),
        "retry-after": formatdate(an_hour_ago + 20, usegmt=True),
    }
    assert read_answer(503, headers, b"").retry_after_s == 20


def test_the_wait_doubles_with_jitter_up_to_ten_minutes() -> None:
    for attempt in range(1, 40):
        expected = min(2.0 ** (attempt - 1), LONGEST_WAIT_S)
        assert 0.85 * expected <= backoff_s(attempt) <= 1.15 * expected
    assert backoff_s(1, asked_s=7) == 7


@pytest.mark.parametrize("asked_s", [0, 0.001, -5, 1e9, None])
def test_no_push_is_sent_again_within_a_second(asked_s: float | None) -> None:
    for attempt in range(1, 40):
        assert 1 <= backoff_s(attempt, asked_s) <= 1.15 * LONGEST_WAIT_S


def test_what_fails_as_before_is_not_sent_earlier_than_without_being_asked() -> None:
    assert backoff_s(5, 2, is_repeated=False) == 2
    assert backoff_s(5, 2, is_repeated=True) >= 0.85 * 16
    assert backoff_s(2, 300, is_repeated=True) == 300


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "fd00::1", "224.0.0.1",
     "0.0.0.0", "::ffff:10.0.0.1", "::", "fe80::1%lo", "255.255.255.255", "240.0.0.1",
     "192.168.0.1", "172.16.0.1", "198.18.0.1", "ff02::1", "ff0e::1",
     # Services of clouds.
     "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
     # IPv4 inside of IPv6: compatible, mapped, NAT64, 6to4, Teredo.
     "::127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1",
     "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:808:808::1", "2001::1", "fec0::1", "3fff::1"],
)  # fmt: skip
def test_private_and_special_addresses_are_refused(address: str) -> None:
    assert not is_allowed(address, ())
    assert not is_allowed(address, (ip_network("203.0.113.0/24"), ip_network("fd12::/64")))


def test_public_and_allowed_addresses_are_reached() -> None:
    assert is_allowed("93.184.216.34", ())
    assert is_allowed("127.0.0.1", LOOPBACK)
    assert is_allowed("::ffff:10.0.0.1", (ip_network("10.0.0.0/8"),))
    assert is_allowed("2606:4700::1111", ())
    assert is_allowed("64:ff9b::808:808", ()), "a public address, by a network's own translation"
    assert is_allowed("64:ff9b::a00:1", (ip_network("10.0.0.0/8"),))
    assert is_allowed("2002:808:808::1", (ip_network("2002::/16"),))


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0", "[::1]",
     "[::ffff:7f00:1]", "127.0.0.1.", "LOCALHOST"],
)  # fmt: skip
def test_a_url_to_this_machine_is_refused_however_it_is_written(host: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(InvalidEndpoint):
            asyncio.run(check_url(f"{scheme}://{host}/push", ()))


@pytest.mark.parametrize("address", ["4000::1", "e000::1", "100::1", "abcd::1", "::1:2:3:4"])
def test_of_ipv6_only_what_is_given_out_for_the_public_is_public(address: str) -> None:
    assert not is_allowed(address, ())


def test_of_this_machine_only_our_own_routes_are_reached() -> None:
    ours = reachable("", "http://localhost:8000")
    asyncio.run(check_url("http://localhost:8000/push", ours))
    for url in (
        "http://localhost:8001/push",
        "http://127.0.0.1:8000/push",
        "http://localhost/push",
        "http://[::1]:8000/push",
    ):
        with pytest.raises(InvalidEndpoint, match="TRIGGERKIT_ALLOW_NETWORKS"):
            asyncio.run(check_url(url, ours))
    assert reachable("", "https://app.example.com") == ()
    asyncio.run(check_url("http://localhost:8001/push", reachable("127.0.0.0/8, ::1", "https://x")))


def test_a_refused_url_names_the_setting_that_allows_it() -> None:
    with pytest.raises(InvalidEndpoint, match=r"10\.1\.2\.3.*TRIGGERKIT_ALLOW_NETWORKS"):
        asyncio.run(check_url("http://10.1.2.3/push", ()))
    asyncio.run(check_url("http://10.1.2.3/push", (ip_network("10.0.0.0/8"),)))


PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize("body", [PAGE, b"<html>", b"\xef\xbb\xbf<HTML lang=en>"])
@pytest.mark.parametrize("media_type", ["text/html", "Text/HTML; charset=utf-8"])
def test_a_web_page_is_no_delivery(body: bytes, media_type: str) -> None:
    answer = read_answer(200, {"content-type": media_type}, body)
    assert answer.verdict == "endpoint_failed"
    assert answer.error == "answered 200 with HTML, not a webhook's answer: is the URL right?"
    assert not answer.is_suspect


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("text/html", b"ok"), ("text/html", b""), ("text/html; charset=utf-8", b"<3"),
     ("application/json", b'"<html>"'), ("text/plain", PAGE), ("text/html", b"<htmlish>")],
)  # fmt: skip
def test_a_framework_that_calls_every_answer_html_is_believed(media_type: str, body: bytes) -> None:
    assert read_answer(200, {"content-type": media_type}, body).verdict == "delivered"


def push(attempt: int = 1, **credentials: Any) -> Push:
    return Push(
        "http://x/", b"{}", "msg_1", attempt, timeout_s=1, credentials=Credentials(**credentials)
    )


def test_an_attempt_is_signed_for_its_id_its_time_and_its_body() -> None:
    first, second = new_secret(), new_secret()
    headers = headers_of(push(signing_secrets=(second, first)))
    for secret in (first, second):
        Webhook(secret).verify(b"{}", headers)
    assert "webhook-signature" not in headers_of(push())


def test_attempts_of_a_batch_share_a_trace_and_have_spans_of_their_own() -> None:
    one, two = headers_of(push(1))["traceparent"], headers_of(push(2))["traceparent"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", one)
    assert one.split("-")[1] == two.split("-")[1] == traceparent("msg_1").split("-")[1]
    assert one != two
    assert traceparent("msg_2").split("-")[1] != one.split("-")[1]


def test_an_endpoint_has_headers_of_its_own_but_not_ours() -> None:
    given = {
        "Authorization": "Bearer x",
        "Content-Type": "text/plain",
        "Webhook-ID": "other",
        "webhook-signature": "v1,AAAA",
        "Triggerkit-Attempt": "9",
        "triggerkit-test": "1",
    }
    headers = headers_of(push(attempt=2, headers=given))
    assert headers["authorization"] == "Bearer x"
    assert headers["user-agent"] == "triggerkit"
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["triggerkit-attempt"]) == ("msg_1", "2")
    assert not {"webhook-signature", "triggerkit-test"} & headers.keys()


def test_an_endpoints_own_user_agent_is_sent() -> None:
    headers = headers_of(push(headers={"User-Agent": "ours/1.0"}))
    assert headers["user-agent"] == "ours/1.0"


@pytest.mark.parametrize("credentials", [{"problem": "no key"}, {"signing_secrets": ("whsec_x",)}])
def test_without_the_credentials_nothing_is_sent(credentials: dict[str, Any]) -> None:
    async def scenario() -> Answer:
        async with Pusher(()) as pusher:
            return await pusher.send(push(**credentials))

    answer = asyncio.run(scenario())
    assert (answer.verdict, answer.status, answer.is_suspect) == ("endpoint_failed", None, False)
    assert answer.error
    assert "whsec_x" not in answer.error


def test_without_a_secret_of_our_routes_only_pushes_to_them_have_a_problem() -> None:
    settings = Settings.parse(
        {"DATABASE_URL": "postgres://localhost/x", "TRIGGERKIT_PUBLIC_URL": "http://ours.example"}
    )

    def problem(url: str) -> str | None:
        sealed = SealedEndpoint(1, "e", url, None, None, "api", None)
        return credentials_of(sealed, Keyring([]), settings).problem

    assert "TRIGGERKIT_WEBHOOK_SECRET" in str(problem("http://ours.example/push"))
    assert problem("http://theirs.example/push") is None


def test_credentials_print_nothing_secret() -> None:
    shown = repr(push(headers={"authorization": "hunter2"}, signing_secrets=("whsec_hunter2",)))
    assert "hunter2" not in shown


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.com", "10.0.0.1", "localhost.example.com"])
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_ALLOW_NETWORKS"):
        parse_networks("10.0.0.0/8, office")
