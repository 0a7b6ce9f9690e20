"""Reading a request's body within limits."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from triggerkit.tasks.receive.body import MAX_BODY_BYTES, BodyRefused

#: Seconds a sender may take for the whole body.
READ_TIMEOUT_S = 30.0


async def read_body(
    request: Request, max_bytes: int = MAX_BODY_BYTES, *, of_any_type: bool = False
) -> bytes:
    """Return the body: UTF-8, and said to be JSON unless it may be `of_any_type`.

    Raises:
        Refused: 400 cut short, 408 too slow, 413 too large, 415 not JSON or an unknown encoding.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if not is_json and not of_any_type:
        raise BodyRefused(415, "the content type must be application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise BodyRefused(415, "the content encoding must be gzip or none")
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            body = await _read(request, max_bytes)
    except TimeoutError:
        raise BodyRefused(408, f"the body took longer than {READ_TIMEOUT_S:g} s") from None
    if encoding == "gzip":
        body = _gunzip(body, max_bytes)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BodyRefused(400, "the body is not UTF-8") from None
    return body


async def _read(request: Request, max_bytes: int) -> bytes:
    # Counted as it streams: a chunked body has no Content-Length to trust.
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise BodyRefused(413, f"the body is larger than {max_bytes} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise BodyRefused(413, f"the body is larger than {max_bytes} bytes")
            chunks.append(chunk)
    except ClientDisconnect:
        raise BodyRefused(400, "the connection ended before the body did") from None
    return b"".join(chunks)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise BodyRefused(400, "the body is not gzip") from None
    if len(plain) > max_bytes:
        raise BodyRefused(413, f"the body is larger than {max_bytes} bytes")
    if not decompressor.eof:
        raise BodyRefused(400, "the gzip body is cut short")
    if decompressor.unused_data:
        raise BodyRefused(400, "the gzip body has data after its end")
    return plain
