"""A fake embeddings API that costs next to nothing: its answers are made before it listens.

`python -m bench.rivals.embeddings_server --latency-ms 0` prints `ready` and its port, and then
answers `POST /v1/embeddings` in base64 or floats, with the same vector for the same place in a
request. `GET /counts` tells what was paid for, `POST /reset` forgets it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from array import array
from base64 import b64encode
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import Any

import httptools
import orjson
import uvloop

#: The vectors of text-embedding-3-small, and the API's own limit of inputs in a request.
DIMENSIONS = 1536
MAX_INPUTS = 2048

_HEAD = b'{"object":"list","model":"fake","data":['
_TAIL = b'],"usage":{"prompt_tokens":1,"total_tokens":1}}'


class Answers:
    """The items of the longest answer, one after the other; a shorter one is its beginning."""

    def __init__(self, encoded: list[bytes]) -> None:
        items = [
            b'%s{"object":"embedding","index":%d,"embedding":%s}' % (b"," if i else b"", i, vector)
            for i, vector in enumerate(encoded)
        ]
        self._items = memoryview(b"".join(items))
        self._ends = [0, *accumulate(map(len, items))]

    def of(self, count: int) -> list[bytes | memoryview]:
        """The body of an answer to `count` inputs, in pieces."""
        return [_HEAD, self._items[: self._ends[count]], _TAIL]


def make_answers() -> dict[str, Answers]:
    """The answers by `encoding_format`."""
    # Without a seed, two servers would not answer alike.
    random = Random(1536)
    vectors = [
        array("f", [random.uniform(-0.05, 0.05) for _ in range(DIMENSIONS)]) for _ in range(64)
    ]
    base64 = [b'"%s"' % b64encode(vector.tobytes()) for vector in vectors]
    floats = [orjson.dumps([round(number, 8) for number in vector]) for vector in vectors]
    return {
        name: Answers([encoded[i % len(encoded)] for i in range(MAX_INPUTS)])
        for name, encoded in (("base64", base64), ("float", floats))
    }


@dataclass(slots=True)
class Counts:
    """What was asked and paid for since the last reset. Times are in seconds since 1970."""

    requests: int = 0
    inputs: int = 0
    distinct: set[bytes] = field(default_factory=set)
    first_at: float = 0.0
    last_at: float = 0.0

    def add(self, texts: list[str]) -> None:
        """Count the inputs of one request."""
        self.requests += 1
        self.inputs += len(texts)
        self.distinct.update(blake2b(text.encode(), digest_size=12).digest() for text in texts)
        self.last_at = time.time()
        self.first_at = self.first_at or self.last_at

    def as_json(self) -> bytes:
        """The counts, with the number of distinct texts."""
        return orjson.dumps({**asdict(self), "distinct": len(self.distinct)})


class Api:
    """What all connections share."""

    def __init__(self, latency_s: float) -> None:
        self.answers = make_answers()
        self.counts = Counts()
        self.latency_s = latency_s

    def answer(self, path: bytes, body: bytes) -> tuple[float, list[bytes | memoryview]]:
        """Seconds to wait and the body, in pieces."""
        if path.endswith(b"/embeddings"):
            request = orjson.loads(body)
            texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
            self.counts.add(texts)
            encoding = request.get("encoding_format") or "float"
            return self.latency_s, self.answers[encoding].of(len(texts))
        if path == b"/reset":
            self.counts = Counts()
        return 0.0, [self.counts.as_json()]


class Connection(asyncio.Protocol):
    """One client: requests come one after the other, as HTTP/1.1 clients send them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._path = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        wait_s, pieces = self._api.answer(self._path, b"".join(self._body))
        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, self._send, pieces)
        else:
            self._send(pieces)

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        length = sum(map(len, pieces))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}"
        self._transport.writelines([head.encode() + b"\r\n\r\n", *pieces])


async def serve(latency_s: float) -> None:
    """Serve on any free port until the process ends."""
    api = Api(latency_s)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(api), "127.0.0.1", 0)
    print(f"ready on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    # Ends at once, also where it was started in the background, which has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="A fake embeddings API.")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args().latency_ms / 1000))
