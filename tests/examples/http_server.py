"""An HTTP server that keeps what it is posted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

#: What a request's JSON is answered by: a status, headers and a body.
Answer = tuple[int, dict[str, str], Any]


class HttpServer:
    """The server while it runs: the JSON of each request that it accepted."""

    def __init__(self, answer: Callable[[Any], Answer]) -> None:
        self.accepted: list[Any] = []
        self.refused = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, answered = answer(body)
                if status == 200:
                    outer.accepted.append(body)
                else:
                    outer.refused += 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(orjson.dumps(answered))

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def http_server(answer: Callable[[Any], Answer]) -> Iterator[HttpServer]:
    """Serve on a port of its own until the end of the block."""
    running = HttpServer(answer)
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join()
