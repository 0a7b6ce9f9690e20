"""The pull API: `POST /api/v1/consumers/{name}/receive`, `/ack`, `/nack` and `/extend`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeVar

import orjson
import psycopg
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triggerkit.consumers.definition import MAX_BATCH_SIZE
from triggerkit.consumers.pull.consumers import NotPulled, in_order
from triggerkit.consumers.pull.notifier import Listener
from triggerkit.consumers.pull.receive import Received
from triggerkit.consumers.pull.service import Puller
from triggerkit.errors import ConfigurationError, UnknownConsumer
from triggerkit.runs.client import Client
from triggerkit.state.connect import Pool, pool
from triggerkit.state.faults import blames_values, is_away
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.auth import has_bearer, unauthorized
from triggerkit.web.body import read_body
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

#: Largest body of a request.
MAX_BODY_BYTES = 1024 * 1024

#: Messages that one request acknowledges, hands back or extends at most.
MAX_ACK_IDS = 10_000

#: Seconds that a receive waits for messages at most.
MAX_WAIT_S = 300

#: Receives that wait in this process at most.
MAX_WAITING = 200

#: Connections to the state database: no more callers than there are partitions hold messages.
POOL_SIZE = 8

#: Seconds after which one that found no place to wait, or no Postgres, is to try again.
RETRY_AFTER_S = 1

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


def _seconds(value: object) -> object:
    """Milliseconds, or a text such as "60s", as seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,9})(ms|s|m)", value, re.ASCII)
        if match is not None:
            return int(match[1]) * _UNITS_S[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000
    raise ValueError('use milliseconds, or a text such as "500ms", "60s" or "5m"')


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Receive(_Body):
    """A request for messages: how many, and how long to wait when there are none."""

    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)] = 1
    wait_for: Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=MAX_WAIT_S)] = 0.0


class Ack(_Body):
    """Messages that are done."""

    ack_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_ACK_IDS)]


class Nack(Ack):
    """Messages that are handed back, to come again after `delay`."""

    delay: Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=7 * 86_400)] = 0.0


class Extend(Ack):
    """Messages that take longer: they are held for `seconds` from now."""

    seconds: Annotated[float, Field(gt=0, le=43_200)]


BodyT = TypeVar("BodyT", bound=_Body)


class PullApi:
    """The routes of the pull API; all of its callers wait over one connection."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._puller: Puller | None = None
        self._listener: Listener | None = None
        self._waiting = 0
        self._is_stopping = False
        path = "/consumers/{name}"
        self.routes = [
            Route(f"{path}/receive", self.answering(self._receive), methods=["POST"]),
            Route(f"{path}/ack", self.answering(self._ack), methods=["POST"]),
            Route(f"{path}/nack", self.answering(self._nack), methods=["POST"]),
            Route(f"{path}/extend", self.answering(self._extend), methods=["POST"]),
        ]

    def stop_waiting(self) -> None:
        """Answer every receive that waits, as the process is about to end."""
        self._is_stopping = True
        if self._listener is not None:
            self._listener.wake_all()

    async def close(self) -> None:
        """Close the connections."""
        self.stop_waiting()
        if self._listener is not None:
            await self._listener.close()
        if self._puller is not None:
            await self._puller.close()
        if self._pool is not None:
            await self._pool.close()

    async def received(self, request: Request, puller: Puller, given: Receive) -> Received:
        """Return messages of the consumer in the path; those that come within the time to wait.

        The body of `request` was read.
        """
        name = request.path_params["name"]
        received = await puller.receive(name, given.batch_size)
        if not received.messages and given.wait_for > 0:
            with self._place_to_wait():
                received = await self._wait(request, puller, name, given)
        return received

    async def _receive(self, request: Request, puller: Puller) -> Response:
        received = await self.received(request, puller, await parsed(request, Receive))
        return Response(received.body(), media_type="application/json")

    async def _wait(self, request: Request, puller: Puller, name: str, given: Receive) -> Received:
        """Try again whenever something may be there, until the time is up or the caller gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + given.wait_for
        place = await puller.place(name)
        names = [f"consumer {place.consumer_id}", f"database {place.database_id}"]
        gone = asyncio.create_task(_disconnect(request))
        try:
            async with self._known_listener(request).woken_by(names) as woken:
                gone.add_done_callback(lambda _: woken.set())
                while True:
                    woken.clear()
                    received = await puller.receive(name, given.batch_size, gone.done)
                    left_s = until - loop.time()
                    if received.messages or gone.done() or self._is_stopping or left_s <= 0:
                        return received
                    next_s = left_s if received.next_s is None else min(received.next_s, left_s)
                    timer = loop.call_later(next_s, woken.set)
                    await woken.wait()
                    timer.cancel()
        finally:
            gone.cancel()

    @contextmanager
    def _place_to_wait(self) -> Iterator[None]:
        if self._waiting >= MAX_WAITING:
            raise BodyRefused(503, f"{MAX_WAITING} receives are already waiting; try again")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _ack(self, request: Request, puller: Puller) -> Response:
        given = await parsed(request, Ack)
        return done(await puller.ack(request.path_params["name"], given.ack_ids))

    async def _nack(self, request: Request, puller: Puller) -> Response:
        given = await parsed(request, Nack)
        return done(await puller.nack(request.path_params["name"], given.ack_ids, given.delay))

    async def _extend(self, request: Request, puller: Puller) -> Response:
        given = await parsed(request, Extend)
        name = request.path_params["name"]
        return done(await puller.extend(name, given.ack_ids, given.seconds))

    def answering(
        self, handle: Callable[[Request, Puller], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return `handle` for who carries the secret key, its errors as answers."""

        async def answer(request: Request) -> Response:
            key = _client(request).settings.triggerkit_secret_key
            if not has_bearer(request, [key.get_secret_value()] if key else []):
                return unauthorized()
            try:
                return await handle(request, await self._known_puller(request))
            except BodyRefused as refused:
                return _refused(refused.status, refused.error)
            except UnknownConsumer as error:
                return _refused(404, str(error))
            except (NotPulled, ConfigurationError) as error:
                return _refused(409, str(error))
            except ValidationError as error:
                return _invalid(error)
            except psycopg.Error as error:
                if blames_values(error):
                    return _refused(422, "a value cannot be stored")
                if not is_away(error):
                    raise
                await self._drop_dead_connections()
                return _refused(503, "the state database does not answer; try again")

        return answer

    async def _known_puller(self, request: Request) -> Puller:
        if self._puller is None:
            dsn = in_order(_client(request).settings.state_dsn)
            self._pool = pool(dsn, "triggerkit pull", size=POOL_SIZE)
            self._puller = Puller(self._pool)
            await self._pool.open()
        return self._puller

    async def _drop_dead_connections(self) -> None:
        # A server that went away took all of them along; the next call must not find another one.
        if self._pool is not None:
            with suppress(psycopg.Error):
                await self._pool.check()

    def _known_listener(self, request: Request) -> Listener:
        if self._listener is None:
            self._listener = Listener(_client(request).settings.state_dsn)
        return self._listener


def _client(request: Request) -> Client:
    client: Client = request.scope[CLIENT_SCOPE_KEY]
    return client


async def parsed(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the body of a request."""
    return kind.model_validate_json(await read_body(request, MAX_BODY_BYTES))


async def _disconnect(request: Request) -> None:
    """Return when the caller is gone; the request's body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def done(stale: list[str]) -> Response:
    """Return the answer to what was done, but for messages whose lease is gone."""
    body: dict[str, Any] = {"success": True}
    if stale:
        body["stale"] = stale
    return Response(orjson.dumps(body), media_type="application/json")


def _refused(status: int, error: str) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse({"error": error}, status, headers)


def _invalid(error: ValidationError) -> Response:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return _refused(400, "malformed JSON")
    detail = [
        {"loc": list(p["loc"]), "msg": p["msg"].removeprefix("Value error, ")} for p in problems
    ]
    return JSONResponse({"error": "Invalid payload", "detail": detail}, 422)
