"""Bearer secrets: one of several, as bytes, and never by being empty."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from triggerkit.web.auth import has_bearer, unauthorized

SECRET = "the secret of the tests, long enough"
NEXT = "the secret that comes after it, also"


def request(*authorization: bytes) -> Request:
    headers = [(b"authorization", value) for value in authorization]
    return Request({"type": "http", "method": "POST", "headers": headers})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_secret_opens_whatever_the_case_of_the_scheme(scheme: str) -> None:
    assert has_bearer(request(f"{scheme} {SECRET}".encode()), [SECRET])
    assert has_bearer(request(f"{scheme}  {SECRET} ".encode()), [SECRET])


def test_while_secrets_rotate_each_of_them_opens() -> None:
    for secret in (SECRET, NEXT):
        assert has_bearer(request(f"Bearer {secret}".encode()), [SECRET, NEXT])
    assert not has_bearer(request(f"Bearer {SECRET}".encode()), [NEXT])


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer undefined",
        b"Bearer null",
        b"Basic " + SECRET.encode(),
        SECRET.encode(),
        b"Bearer " + SECRET.encode()[:-1],
        b"Bearer " + SECRET.encode() + b"x",
        b"Bearer " + SECRET.upper().encode(),
        b"Bearer " + SECRET.encode() + b"," + NEXT.encode(),
        b"Bearer \xff\xfe",
        "Bearer gehäim".encode(),
    ],
)
def test_anything_else_does_not(given: bytes) -> None:
    assert not has_bearer(request(given), [SECRET, NEXT])


def test_nothing_opens_without_a_header_or_without_a_secret() -> None:
    assert not has_bearer(request(), [SECRET])
    assert not has_bearer(request(b"Bearer "), [""])
    assert not has_bearer(request(b"Bearer "), [])


def test_a_secret_beyond_ascii_is_compared_as_the_bytes_that_came() -> None:
    secret = "ein Geheimnis für Prüfungen, 長い"
    assert has_bearer(request(f"Bearer {secret}".encode()), [secret])
    assert not has_bearer(request(b"Bearer " + secret.encode("utf-16")), [secret])


def test_the_refusal_says_nothing_but_how_to_ask() -> None:
    answer = unauthorized()
    assert (answer.status_code, answer.body) == (401, b'{"error":"Unauthorized"}')
    assert answer.headers["www-authenticate"] == "Bearer"
