"""The events REST API: its paths, who may call them, and its answers.

It answers as the REST API of Upstash's Kafka did, which Sequin's events were read through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from triggerkit.consumers.pull.consumers import in_order
from triggerkit.events.groups.service import Groups
from triggerkit.events.message import as_json
from triggerkit.events.open import open_source
from triggerkit.events.source import Source, TopicPartition, View
from triggerkit.runs.client import Client
from triggerkit.state.connect import Pool, pool
from triggerkit.web.kafka.answers import (
    SUCCESS,
    answer,
    answer_to,
    instances,
    not_allowed,
    refused,
)
from triggerkit.web.kafka.basic import Caller, Door, read_basic
from triggerkit.web.kafka.given import (
    Consume,
    Fetch,
    Invalid,
    OfPartition,
    WithOffset,
    body_of,
    consuming_of,
    list_of,
    names_of,
)
from triggerkit.web.kafka.named_route import NamedRoute
from triggerkit.web.kafka.reading import Reading
from triggerkit.web.kafka.waiting import Waiting
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

logger = logging.getLogger(__name__)

PREFIX: Final = "/kafka"

#: Connections to the state database.
POOL_SIZE = 8

#: Seconds that a statement takes at most: who holds a group may be stopped amid it.
STATEMENT_S = 20

#: What is committed where nothing is, as Kafka's protocol has it.
NOTHING_COMMITTED = -1


class _Parts(NamedTuple):
    """What requests work with, once it is open."""

    pool: Pool
    source: Source
    groups: Groups
    reading: Reading


class _Call(NamedTuple):
    """A request by a user."""

    request: Request
    caller: Caller
    parts: _Parts


_Handle = Callable[[_Call], Awaitable[object]]


class KafkaApi:
    """The routes below `/kafka`; its connections open with the first request."""

    def __init__(self) -> None:
        self._door = Door()
        self._waiting = Waiting()
        self._parts: _Parts | None = None
        self._opening = asyncio.Lock()
        instance = "{group}/{instance}"
        both, posted = ("GET", "POST"), ("POST", "DELETE")
        self.routes: list[BaseRoute] = [
            self._route("fetch", both, _fetch),
            self._route(f"consume/{instance}", both, _consume),
            self._route(f"consume/{instance}/{{topic}}", both, _consume),
            self._route(f"commit/{instance}", both, _commit),
            self._route(f"committed/{instance}", both, _committed),
            self._route("offsets/{at}", both, _offsets),
            self._route(f"delete-consumer/{instance}", posted, _delete),
            self._route("topics", ("GET",), _topics),
            self._route("consumers", ("GET",), _consumers),
            self._route("produce", (), _fetch),
            self._route("produce/{rest:path}", (), _fetch),
        ]

    def stop_waiting(self) -> None:
        """Answer every request that waits, as the process is about to end."""
        self._waiting.stop()

    async def close(self) -> None:
        """Close the connections."""
        await self._waiting.close()
        if self._parts is not None:
            await self._parts.groups.close()
            await self._parts.source.close()
            await self._parts.pool.close()

    async def view_of(self, client: Client, topics: Collection[str]) -> View:
        """Return the topics as who reads them finds them, with the bounds of `topics`.

        Raises:
            KafkaFault: Kafka does not answer.
            ConfigurationError: its settings are wrong.
        """
        parts = await self._opened(client)
        await parts.source.ready()
        return await parts.source.look(topics)

    def _route(self, path: str, methods: Sequence[str], handle: _Handle) -> Route:
        async def handled(request: Request) -> Response:
            try:
                given = read_basic(request)
                parts = await self._opened(request.scope[CLIENT_SCOPE_KEY])
                caller = await self._door.enter(request, given, parts.pool)
                if request.method not in methods:
                    return not_allowed(methods)
                # Before a connection is held: Kafka may take its time to say nothing.
                await parts.source.ready()
                return answer(200, await handle(_Call(request, caller, parts)))
            except Exception as error:
                return await self._answer_to(error, path)

        route = NamedRoute(f"{PREFIX}/{path}", handled)
        # Other methods are answered in words too.
        route.methods = None
        return route

    async def _answer_to(self, error: Exception, path: str) -> Response:
        found = answer_to(error)
        if found is None:
            # Without its message, which may have values.
            name = type(error).__name__
            logger.error("%s/%s failed with %s; please report it", PREFIX, path, name)
            logger.debug("where it failed", exc_info=error)
            return refused(500, "an error that should not happen; the log of serve has it")
        if found.status_code == 503 and self._parts is not None:
            # A server that went away took all connections along.
            with suppress(psycopg.Error, PoolTimeout):
                await self._parts.pool.check()
        return found

    async def _opened(self, client: Client) -> _Parts:
        async with self._opening:
            if self._parts is None:
                dsn = client.settings.state_dsn
                states = pool(
                    in_order(dsn), "triggerkit events", size=POOL_SIZE, statement_s=STATEMENT_S
                )
                woken_by = partial(self._waiting.woken_by, dsn)
                source = open_source(client.settings.kafka, states.connection, woken_by)
                # What its settings refuse leaves nothing open.
                await states.open()
                groups = Groups(dsn, source)
                reading = Reading(states, source, dsn, self._waiting, groups)
                self._parts = _Parts(states, source, groups, reading)
            return self._parts


async def _fetch(call: _Call) -> list[dict[str, Any]]:
    given = await body_of(call.request, Fetch)
    found = await call.parts.reading.fetch(call.request, call.caller, given)
    return [as_json(message) for message in found]


async def _consume(call: _Call) -> list[dict[str, Any]]:
    body = await body_of(call.request, Consume)
    consuming, timeout_ms = consuming_of(call.request, body)
    found = await call.parts.reading.consume(call.request, call.caller, consuming, timeout_ms)
    return [as_json(message) for message in found]


async def _commit(call: _Call) -> dict[str, Any]:
    group, instance = names_of(call.request)
    given = await list_of(call.request, WithOffset)
    offsets = None
    if given is not None:
        offsets = [((one.topic, one.partition), one.offset) for one in given]
    view = await call.parts.source.look()
    for key, _ in offsets or ():
        view.require_partition(*key)
    async with call.parts.pool.connection() as connection:
        await call.parts.groups.commit(connection, group, instance, offsets)
    return SUCCESS


async def _committed(call: _Call) -> list[dict[str, Any]]:
    group, _ = names_of(call.request)
    keys = await _keys(call)
    async with call.parts.pool.connection() as connection:
        found = await call.parts.groups.committed(connection, group, keys)
    return _with_offsets(keys, [NOTHING_COMMITTED if one is None else one for one in found])


async def _offsets(call: _Call) -> list[dict[str, Any]]:
    text = call.request.path_params["at"]
    at = text if text in ("earliest", "latest") else _moment(text)
    keys = await _keys(call)
    view = await call.parts.source.look({topic for topic, _ in keys})
    return _with_offsets(keys, [await _at(view, key, at) for key in keys])


async def _keys(call: _Call) -> list[TopicPartition]:
    """Return the partitions that a request names, all there are when it names none."""
    given = await list_of(call.request, OfPartition)
    view = await call.parts.source.look()
    if given is None:
        return [(name, p) for name, count in view.partitions.items() for p in range(count)]
    for one in given:
        view.require_partition(one.topic, one.partition)
    return [(one.topic, one.partition) for one in given]


async def _delete(call: _Call) -> dict[str, Any]:
    group, instance = names_of(call.request)
    async with call.parts.pool.connection() as connection:
        await call.parts.groups.leave(connection, group, instance)
    return SUCCESS


async def _topics(call: _Call) -> dict[str, int]:
    return dict((await call.parts.source.look()).partitions)


async def _consumers(call: _Call) -> list[dict[str, Any]]:
    async with call.parts.pool.connection() as connection:
        groups = await call.parts.groups.list_groups(connection)
    return [{"name": name, "instances": instances(group)} for name, group in groups]


def _with_offsets(keys: Sequence[TopicPartition], offsets: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"topic": topic, "partition": partition, "offset": offset}
        for (topic, partition), offset in zip(keys, offsets, strict=True)
    ]


def _moment(text: str) -> datetime:
    if not (text.isascii() and text.isdigit() and len(text) <= 14):
        raise Invalid("name the offsets by earliest, latest, or milliseconds since 1970")
    return datetime.fromtimestamp(int(text) / 1000, UTC)


async def _at(view: View, key: TopicPartition, at: str | datetime) -> int:
    if isinstance(at, datetime):
        return await view.offset_at(key, at)
    bounds = view.bounds_of(*key)
    return bounds.first if at == "earliest" else bounds.end
