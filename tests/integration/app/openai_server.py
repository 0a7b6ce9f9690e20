"""A small server that speaks the OpenAI embeddings API, and misbehaves on demand."""

from __future__ import annotations

import threading
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import shake_256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Failure:
    """An answer that is given instead of embeddings."""

    status: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)
    param: str | list[str] | None = None


def vectors_by_hash(texts: list[str], dimensions: int) -> list[array[float]]:
    """Vectors that mean nothing, but are the same for the same text and other for another."""
    return [
        array("f", (byte / 128 - 1 for byte in shake_256(text.encode()).digest(dimensions)))
        for text in texts
    ]


class OpenAIServer:
    """Its state can be set by a test at any time and read after a run.

    `inputs` are the texts that were embedded, in order; `failures` are answered first, one a
    request, and `busy`, while it is set, always; `spoil` changes the vectors of an answer; a text
    with `poison` is refused, and one longer than `max_chars`; `meanwhile` runs when a request has
    arrived and before it is answered. With `drips`, a body comes byte by byte and never ends.
    """

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions = dimensions
        self.vectors: Callable[[list[str], int], list[array[float]]] = vectors_by_hash
        self.inputs: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.failures: list[Failure | None] = []
        self.busy: Failure | None = None
        self.spoil: Callable[[list[dict[str, Any]]], Any] = lambda data: data
        self.poison = "POISON"
        self.max_chars = 1_000_000
        self.only_floats = False
        self.meanwhile: Callable[[], None] = lambda: None
        self.drips = False
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[OpenAIServer]:
        # The interval is how long a shutdown may take.
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, request: dict[str, Any]) -> Failure | dict[str, Any]:
        self.requests.append(request)
        self.meanwhile()
        texts: list[str] = request["input"]
        failure = self.failures.pop(0) if self.failures else self.busy or self._refusal(texts)
        if failure is not None:
            return failure
        self.inputs += texts
        as_floats = self.only_floats or request.get("encoding_format") != "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": v.tolist() if as_floats else b64encode(v.tobytes()).decode(),
            }
            for index, v in enumerate(self.vectors(texts, self.dimensions))
        ]
        # The order is not promised: `index` counts.
        data = self.spoil(data[::-1])
        return {"object": "list", "model": request["model"], "data": data, "usage": {}}

    def _refusal(self, texts: list[str]) -> Failure | None:
        if any(self.poison in text for text in texts):
            return Failure(400, "Invalid 'input'", param="input")
        if any(len(text) > self.max_chars for text in texts):
            return Failure(400, "This model's maximum context length is 8192 tokens")
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = server.answer(request)
                if isinstance(answer, Failure):
                    error = {"message": answer.message, "param": answer.param, "code": None}
                    self._send(answer.status, {"error": error}, answer.headers)
                else:
                    self._send(200, answer, {})

            def _send(self, status: int, body: object, headers: Mapping[str, str]) -> None:
                content = orjson.dumps(body)
                self.send_response(status)
                for name, value in {**headers, "content-type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content) + server.drips * 10**6))
                self.end_headers()
                if server.drips:
                    self._drip()
                self.wfile.write(content)

            def _drip(self) -> None:
                with suppress(OSError):
                    while not server._ended.wait(0.05):
                        self.wfile.write(b" ")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay quiet."""

        return Handler
