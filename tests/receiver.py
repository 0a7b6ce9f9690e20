"""A receiver of pushes whose answers the test chooses, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

#: What the test answers to a request: a response, made from what came.
Answer = Callable[["Received"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its headers, its body as it came, and its messages."""

    headers: dict[str, str]
    body: bytes
    messages: list[dict[str, Any]]

    @property
    def batch_id(self) -> str:
        """The id that stays the same for a batch's attempts."""
        return self.headers["webhook-id"]

    @property
    def keys(self) -> list[str]:
        """The rows' keys, in order."""
        return [m["metadata"]["record_pks"][0] for m in self.messages]


async def accept(_received: Received) -> Response:
    """The answer of a receiver that is well."""
    return JSONResponse({})


@dataclass(slots=True)
class Receiver:
    """Records requests and answers as `answer` says; a test may change it at any time."""

    answer: Answer = accept
    requests: list[Received] = field(default_factory=list)
    url: str = ""
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @asynccontextmanager
    async def start(cls, answer: Answer = accept) -> AsyncIterator[Self]:
        """A receiver that listens on a port of its own."""
        receiver = cls(answer)
        app = Starlette(routes=[Route("/push", receiver._receive, methods=["POST"])])
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        started = asyncio.Event()
        serving = asyncio.create_task(_serve(server, started))
        await started.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        receiver.url = f"http://127.0.0.1:{port}"
        try:
            yield receiver
        finally:
            server.should_exit = server.force_exit = True
            await serving

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages of all requests, in order of arrival."""
        return [m for r in self.requests for m in r.messages]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until `condition` holds after some request."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(condition)

    async def _receive(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            # A row may hold JSON that Postgres takes and Python does not.
            parsed = {"data": []}
        data = parsed.get("data")
        # An event has data of its own.
        messages = data if isinstance(data, list) else [parsed]
        received = Received(dict(request.headers), body, messages)
        async with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()
        return await self.answer(received)


async def _serve(server: uvicorn.Server, started: asyncio.Event) -> None:
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announced  # type: ignore[method-assign]
    await server.serve()
