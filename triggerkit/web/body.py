"""Reading a request's JSON body within limits."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

#: Largest body, after decompression.
MAX_BODY_BYTES = 5 * 1024 * 1024

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
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Nesting of more than 1,024 is malformed to this parser.
        raise Refused(400, f"malformed JSON: {error.msg}") from None


def dump_json(value: Any) -> bytes:
    """`value`, parsed from a request, as JSON again.

    Raises:
        Refused: it is nested deeper than the 254 levels that can be written.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        raise Refused(400, "the JSON is nested too deeply") from None
