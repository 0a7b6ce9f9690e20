"""The application of `serve` behind a real HTTP server, and requests to it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import orjson
import uvicorn

from tests.conftest import WEBHOOK_SECRET
from triggerkit.supervisor.probes.listening import listen
from triggerkit.web.protocol import BoundedProtocol

AUTHORIZED = {"authorization": f"Bearer {WEBHOOK_SECRET}"}


@dataclass(frozen=True)
class Answer:
    """What a request was answered; `json` is None for an empty body."""

    status: int
    json: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """A running application."""

    port: int

    def post(
        self,
        path: str,
        body: Any,
        headers: dict[str, str] | None = None,
        *,
        authorized: bool = True,
    ) -> Answer:
        """POST `body`: bytes as they are, an iterator of bytes in chunks, all else as JSON."""
        given = {"content-type": "application/json", **(AUTHORIZED if authorized else {})}
        raw = body if isinstance(body, bytes | Iterator) else orjson.dumps(body)
        return self.request("POST", path, raw, {**given, **(headers or {})})

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Make one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            chunked = isinstance(body, Iterator)
            connection.request(method, path, body, headers or {}, encode_chunked=chunked)
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            is_json = found.get("content-type") == "application/json"
            return Answer(response.status, orjson.loads(content) if is_json else None, found)
        finally:
            connection.close()


@contextmanager
def serving(
    application: Any, config: uvicorn.Config | None = None, *, port: int = 0
) -> Iterator[Site]:
    """Serve `application` as `triggerkit serve` does, on a free port unless one is given."""
    listener = listen("127.0.0.1", port)
    config = config or uvicorn.Config(
        application, loop="uvloop", http=BoundedProtocol, lifespan="on", log_config=None
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def note_startup(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = note_startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        assert started.wait(10)
        assert server.started
        yield Site(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def message(row: int, key: str | None = None, **metadata: Any) -> dict[str, Any]:
    """A message as our own push sends it."""
    return {
        "record": {"id": row, "text": "x"},
        "changes": None,
        "action": "insert",
        "metadata": {
            "table_schema": "public",
            "table_name": "posts",
            "record_pks": [str(row)],
            "commit_lsn": 1000 + row,
            "commit_idx": 0,
            "idempotency_key": key or f"key-{row}",
            "position": row,
            "consumer": {"id": "1", "name": "posts"},
            **metadata,
        },
    }
