"""`/metrics`: the state's figures for Prometheus, the same from every `serve`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack

import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from triggerkit.consumers.retention import Policy
from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.auth import has_bearer, unauthorized
from triggerkit.web.measures import Deliveries, measure
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

#: Seconds an answer is given again: many scrapers cost no more than one.
FRESH_S = 1.0

#: Seconds that a scrape waits for a connection.
WAIT_S = 5.0


class _Measured(Collector):
    """Families that were read already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Metrics:
    """The endpoint, and what it remembers between two scrapes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy(settings.log_keep, settings.log_max_bytes)
        self._deliveries = Deliveries()
        self._reading = asyncio.Lock()
        self._text = b""
        self._read_at = float("-inf")

    async def answer(self, request: Request) -> Response:
        """Answer a scrape; 401 without the token, if one is set, and 503 without Postgres."""
        token = self._settings.triggerkit_metrics_token
        if token is not None and not has_bearer(request, [token.get_secret_value()]):
            return unauthorized()
        client: Client = request.scope[CLIENT_SCOPE_KEY]
        try:
            async with self._reading:
                if time.monotonic() - self._read_at >= FRESH_S:
                    self._text = await self._read(client)
                    self._read_at = time.monotonic()
        except (psycopg.Error, PoolTimeout):
            return PlainTextResponse("the state database does not answer\n", status_code=503)
        return Response(self._text, media_type=CONTENT_TYPE_LATEST)

    async def _read(self, client: Client) -> bytes:
        async with (
            client.pool.connection(timeout=WAIT_S) as state,
            AsyncExitStack() as stack,
        ):
            source = await self._source(stack, state)
            families = await measure(state, source, self._policy, self._deliveries)
        registry = CollectorRegistry()
        registry.register(_Measured(families))
        return generate_latest(registry)

    async def _source(
        self, stack: AsyncExitStack, state: psycopg.AsyncConnection
    ) -> psycopg.AsyncConnection | None:
        """Return a connection to the server that has the slots; None while it does not answer."""
        if self._settings.slot_dsn == self._settings.state_dsn:
            return state
        try:
            source = await connect(self._settings.slot_dsn, "triggerkit metrics")
        except (CannotConnect, ConfigurationError):
            return None
        return await stack.enter_async_context(source)
