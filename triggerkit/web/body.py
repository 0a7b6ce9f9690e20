"""Reading a request's JSON body within limits."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

#: Largest body, after decompression.
MAX_BODY_BYTES = 5 * 1024 * 1024

#: Deepest nesting of arrays and objects.
MAX_DEPTH = 64

#: Seconds a sender may take for the whole body.
READ_TIMEOUT_S = 30.0


class Refused(Exception):
    """The request is answered by `status` and `error`."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body's JSON.

    Raises:
        Refused: 400 malformed, 408 too slow, 413 too large, 415 not JSON or an unknown encoding.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Refused(415, "the content type must be application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Refused(415, "the content encoding must be gzip or none")
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            body = await _read(request, max_bytes)
    except TimeoutError:
        raise Refused(408, f"the body took longer than {READ_TIMEOUT_S:g} s") from None
    if encoding == "gzip":
        body = _gunzip(body, max_bytes)
    return _parse(body)


async def _read(request: Request, max_bytes: int) -> bytes:
    # Counted as it streams: a chunked body has no Content-Length to trust.
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise Refused(413, f"the body is larger than {max_bytes} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise Refused(413, f"the body is larger than {max_bytes} bytes")
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the body did") from None
    return b"".join(chunks)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Refused(400, "the body is not gzip") from None
    if len(plain) > max_bytes:
        raise Refused(413, f"the body is larger than {max_bytes} bytes")
    if not decompressor.eof:
        raise Refused(400, "the gzip body is cut short")
    if decompressor.unused_data:
        raise Refused(400, "the gzip body goes on after its end")
    return plain


def _parse(body: bytes) -> Any:
    if _too_deep(body):
        raise Refused(400, f"the JSON is nested deeper than {MAX_DEPTH}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"malformed JSON: {error.msg}") from None


#: Strings and brackets. A string without an end is one too, so that it is scanned once only.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _too_deep(body: bytes) -> bool:
    # Brackets bound the depth from above, so that ordinary bodies are not scanned.
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKENS.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False
