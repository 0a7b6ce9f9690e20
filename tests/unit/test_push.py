"""What an answer means, how long a failing endpoint waits, and which addresses are reached."""

from __future__ import annotations

import time
from email.utils import formatdate
from ipaddress import ip_network

import pytest

from triggerkit.delivery.backoff import LONGEST_WAIT_S, backoff_s
from triggerkit.delivery.network import LOOPBACK, is_allowed, is_loopback, parse_networks
from triggerkit.delivery.push import read_answer, retry_after
from triggerkit.errors import ConfigurationError


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


@pytest.mark.parametrize("body", [b'{"failed": 1}', b'"failed"', b'{"failed": [1]}', b"<failed>"])
def test_an_answer_that_is_none_of_ours_names_no_failed_items(body: bytes) -> None:
    assert read_answer(200, {}, body).failed == ()


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after("2.5") == 2.5
    assert retry_after(None) is None
    assert retry_after("soon") is None
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


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "fd00::1", "224.0.0.1",
     "0.0.0.0", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_private_and_special_addresses_are_refused(address: str) -> None:
    assert not is_allowed(address, ())


def test_public_and_allowed_addresses_are_reached() -> None:
    assert is_allowed("93.184.216.34", ())
    assert is_allowed("127.0.0.1", LOOPBACK)
    assert is_allowed("::ffff:10.0.0.1", (ip_network("10.0.0.0/8"),))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.com", "10.0.0.1", "localhost.example.com"])
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_ALLOW_NETWORKS"):
        parse_networks("10.0.0.0/8, office")
