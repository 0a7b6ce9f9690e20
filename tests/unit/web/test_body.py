"""Reading a request's body: limits on size, depth and numbers, encodings, and what is malformed."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
import pytest
from starlette.requests import Request

from triggerkit.tasks.receive.body import BodyRefused, split
from triggerkit.web.body import read_body

LIMIT = 1000
JSON = {"content-type": "application/json"}


def read(
    *chunks: bytes, headers: dict[str, str] | None = None, limit: int = LIMIT, cut: bool = False
) -> Any:
    """Read and parse a body that comes in `chunks`; `cut` closes the connection before its end."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    end: dict[str, Any] = {"type": "http.disconnect"} if cut else {"type": "http.request"}
    feed = iter([*messages, end])

    async def receive() -> dict[str, Any]:
        return next(feed)

    given = {**JSON, **(headers or {})}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    body = asyncio.run(read_body(request, limit))
    split(body)
    return msgspec.json.decode(body)


def refused(*chunks: bytes, **given: Any) -> int:
    """The status a body is refused by."""
    with pytest.raises(BodyRefused) as caught:
        read(*chunks, **given)
    return caught.value.status


def test_a_body_is_read_whole_from_its_chunks() -> None:
    assert read(b'{"a": [1,', b" 2.5, null", b"]}") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nope", b"{} {}", b"\xff", b'{"a": NaN}', b"'a'", b'"\\ud800"', b"[1,]"]
)
def test_malformed_json_is_a_400(body: bytes) -> None:
    assert refused(body) == 400


def test_a_body_that_breaks_off_is_a_400() -> None:
    assert refused(b'{"a":', cut=True) == 400


def test_a_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    body = b'"' + b"x" * (LIMIT - 2) + b'"'
    assert read(body) == "x" * (LIMIT - 2)
    assert refused(body + b" ") == 413


def test_chunks_are_counted_whatever_the_content_length_says() -> None:
    endless = [b"x" * 100] * 1000
    assert refused(*endless, headers={"content-length": "10"}) == 413
    assert refused(*endless) == 413


def test_a_content_length_over_the_limit_is_refused_before_the_body_is_read() -> None:
    assert refused(headers={"content-length": str(LIMIT + 1)}, cut=True) == 413


@pytest.mark.parametrize("length", ["-1", "abc", "", "²"])
def test_a_strange_content_length_is_not_trusted(length: str) -> None:
    assert read(b"{}", headers={"content-length": length}) == {}


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_nesting_is_bounded(opened: bytes) -> None:
    closed = b"]" if opened == b"[" else b"}"
    assert read(opened * 300 + b"1" + closed * 300, limit=10_000)
    assert refused(opened * 100_000, limit=10**6) == 400


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = '[{"' * 100 + "\\" + '"\\'
    assert read(orjson.dumps({"text": text, "after": [text]})) == {"text": text, "after": [text]}


def test_many_flat_objects_are_no_nesting() -> None:
    body = orjson.dumps([{"a": []}] * 300)
    assert len(read(body, limit=10_000)) == 300


@pytest.mark.parametrize("body", [b'"' * 500_000 + b"[" * 100, b'"\\' * 300_000 + b"[" * 100])
def test_unclosed_strings_cost_no_more_than_others(body: bytes) -> None:
    started = time.monotonic()
    assert refused(body, limit=10**6) == 400
    assert time.monotonic() - started < 1


def test_a_batch_is_split_into_its_messages_as_they_came() -> None:
    is_batch, messages = split(b'{"data": [{"a":1 }, [2], 1e400], "x": 0}')
    assert is_batch
    assert [bytes(message) for message in messages] == [b'{"a":1 }', b"[2]", b"1e400"]


@pytest.mark.parametrize("body", [b'{"data": 1}', b"[1]", b'{"a": {"data": []}}', b"null"])
def test_anything_else_is_one_message(body: bytes) -> None:
    is_batch, (message,) = split(body)
    assert (is_batch, bytes(message)) == (False, body)


def test_integers_are_exact() -> None:
    assert read(b"[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]
    assert read(b"9" * 401) == 10**401 - 1


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
def test_json_goes_by_several_types(media_type: str) -> None:
    assert read(b"{}", headers={"content-type": media_type}) == {}


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_type_is_a_415(media_type: str) -> None:
    assert refused(b"{}", headers={"content-type": media_type}) == 415


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_an_unknown_encoding_is_a_415(encoding: str) -> None:
    assert refused(b"{}", headers={"content-encoding": encoding}) == 415


def test_a_compressed_body_is_read() -> None:
    assert read(gzip.compress(b'{"a": 1}', mtime=0), headers={"content-encoding": "GZip"}) == {
        "a": 1
    }
    assert read(b"{}", headers={"content-encoding": "identity"}) == {}


def test_a_compressed_body_is_bounded_by_what_it_unpacks_to() -> None:
    gzipped = {"content-encoding": "gzip"}
    bomb = gzip.compress(b"[" + b"0," * 5_000_000 + b"0]", mtime=0)
    assert len(bomb) < 10**5
    started = time.monotonic()
    assert refused(bomb, headers=gzipped, limit=10**5) == 413
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        gzip.compress(b'{"a": 1}', mtime=0)[:-1],
        gzip.compress(b'{"a": 1}', mtime=0)[:12],
        gzip.compress(b"{}", mtime=0) + b"trailing",
        gzip.compress(b"{}", mtime=0) + gzip.compress(b" ", mtime=0),
        zlib.compress(b"{}"),
        gzip.compress(b"{}", mtime=0)[:-8] + bytes(8),
    ],
)
def test_a_broken_compressed_body_is_a_400(body: bytes) -> None:
    assert refused(body, headers={"content-encoding": "gzip"}) == 400


def test_a_body_that_drips_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triggerkit.web.body.READ_TIMEOUT_S", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    headers: Sequence[Any] = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(BodyRefused) as caught:
        asyncio.run(read_body(request))
    assert caught.value.status == 408
