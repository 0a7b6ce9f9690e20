"""The tunnels of this process: it says that it holds them, and sends what streams leave for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from triggerkit.consumers.endpoints.model import LOCALHOST, SealedEndpoint
from triggerkit.consumers.tunnels.members import Wanted, beat, enter, leave, why_ended
from triggerkit.consumers.tunnels.pushes import (
    TunnelAnswer,
    TunnelPush,
    forget_old,
    give_answer,
    has_answers,
    take,
)
from triggerkit.delivery.credentials import credentials_of
from triggerkit.delivery.push import Push, headers_of
from triggerkit.encryption import Keyring
from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.failpoints import reach
from triggerkit.runs.client import Client
from triggerkit.state.channels import TUNNELS
from triggerkit.state.connect import connect
from triggerkit.state.recovery import Recovery
from triggerkit.web.tunnel.line import Line, LineLost

logger = logging.getLogger(__name__)

#: Seconds between two times that a process says which tunnels it holds.
BEAT_S = 1.0

#: How many of the pushes that went through a tunnel may be asked for again, and the bytes of all
#: but the last.
MOST_RECENT = 20
MOST_RECENT_BYTES = 8 * 1024 * 1024

#: Seconds in which the last answers of a tunnel that ends are stored, and the looks whether streams
#: have seen them, with the seconds between two.
LAST_ANSWERS_S = 2.0
LAST_LOOKS = 100
LAST_LOOK_S = 0.02

#: The code of a close by which the command knows that another connection of it took over.
REPLACED = 4001


@dataclass(slots=True)
class _Tunnel:
    """A tunnel that is open, and what went through it of late, by its id."""

    endpoint_id: int
    endpoint: str
    user: str
    instance: str
    line: Line
    sending: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    recent: dict[str, tuple[TunnelPush, SealedEndpoint]] = field(default_factory=dict, repr=False)

    def keep(self, push: TunnelPush, endpoint: SealedEndpoint) -> None:
        """Keep a push for as long as it is one of the last."""
        self.recent.pop(push.batch_id, None)
        size = sum(len(kept.body) for kept, _ in self.recent.values())
        while self.recent and (len(self.recent) >= MOST_RECENT or size > MOST_RECENT_BYTES):
            oldest, _ = self.recent.pop(next(iter(self.recent)))
            size -= len(oldest.body)
        self.recent[push.batch_id] = (push, endpoint)


class Hub:
    """The tunnels that this process holds; it looks for pushes as long as there is one."""

    def __init__(self) -> None:
        #: The process, as the state knows it.
        self.serve = token_hex(8)
        self._tunnels: dict[int, _Tunnel] = {}
        self._looking: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def open(self, client: Client, wanted: Wanted, line: Line) -> list[int]:
        """Open the tunnels that a command asks for; returns their numbers.

        Raises:
            TunnelRefused
        """
        async with client.pool.connection() as state:
            await forget_old(state)
            opened = await enter(state, wanted, self.serve)
        for tunnel_id, (endpoint_id, endpoint) in opened.items():
            self._tunnels[tunnel_id] = _Tunnel(
                endpoint_id, endpoint, wanted.user, wanted.instance, line
            )
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(client), name="tunnels")
        return list(opened)

    async def close(self, client: Client, tunnels: list[int]) -> None:
        """End tunnels whose line has ended. Answers that came before its end are answers."""
        ended = [self._tunnels.pop(number) for number in tunnels if number in self._tunnels]
        if sending := {task for tunnel in ended for task in tunnel.sending}:
            await asyncio.wait(sending, timeout=LAST_ANSWERS_S)
        # Nobody says any more that they are held, which ends them too.
        with suppress(psycopg.Error, PoolTimeout):
            async with client.pool.connection() as state:
                for _ in range(LAST_LOOKS):
                    if not await has_answers(state, tunnels):
                        break
                    await asyncio.sleep(LAST_LOOK_S)
                await leave(state, tunnels)

    async def send_again(self, client: Client, line: Line, batch_id: str) -> None:
        """Send what went through `line` of late by this id once more, with a signature of now. What
        comes of it is between the command and its app."""
        for tunnel in list(self._tunnels.values()):
            if tunnel.line is line and (kept := tunnel.recent.get(batch_id)) is not None:
                with suppress(LineLost):
                    await self._sent(client, tunnel, *kept, again=True)

    async def stop(self) -> None:
        """Stop looking for pushes."""
        tasks = [*self._sending, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end_lines(self) -> None:
        """End all lines, as the process is about to end: their commands go to another one."""
        for line in {id(t.line): t.line for t in self._tunnels.values()}.values():
            self._start(line.close(1012))

    async def _look(self, client: Client) -> None:
        losses = (psycopg.Error, CannotConnect)
        recovery = Recovery("the connection that tunnels wait for pushes on", losses, logger)
        dsn = client.settings.state_dsn
        while self._tunnels:
            async with recovery.attempt(), await connect(dsn, "triggerkit tunnels") as state:
                await state.execute(f"LISTEN {TUNNELS}")
                recovery.succeeded()
                await self._hold(client, state)

    async def _hold(self, client: Client, state: psycopg.AsyncConnection) -> None:
        now = asyncio.get_running_loop().time
        beat_at, is_left = now(), True
        while self._tunnels:
            if now() >= beat_at:
                await self._beat(state)
                beat_at, is_left = now() + BEAT_S, True
            if is_left:
                await self._take(client, state)
            is_left = False
            left_s = max(0.0, beat_at - now())
            async for notice in state.notifies(timeout=left_s, stop_after=1):
                is_left = is_left or notice.payload == f"push {self.serve}"
                if not notice.payload:
                    # A token may be revoked, or an endpoint not be local any more.
                    beat_at = now()

    async def _take(self, client: Client, state: psycopg.AsyncConnection) -> None:
        for push, endpoint in await take(state, list(self._tunnels)):
            reach("tunnel-taken")
            if (tunnel := self._tunnels.get(push.tunnel_id)) is not None:
                tunnel.keep(push, endpoint)
                task = self._start(self._send(client, tunnel, push, endpoint))
                tunnel.sending.add(task)
                task.add_done_callback(tunnel.sending.discard)

    async def _beat(self, state: psycopg.AsyncConnection) -> None:
        # Taken before: one that is opened meanwhile is not missing.
        known = list(self._tunnels)
        held = await beat(state, self.serve, known)
        for tunnel_id in known:
            tunnel = self._tunnels.get(tunnel_id)
            if tunnel_id in held or tunnel is None:
                continue
            del self._tunnels[tunnel_id]
            why = await why_ended(
                state, tunnel.user, tunnel.instance, tunnel.endpoint_id, tunnel.endpoint
            )
            logger.info("the tunnel of %s to %s has ended", tunnel.user, tunnel.endpoint)
            ends = tunnel.line.close(REPLACED) if why is None else tunnel.line.refuse(why)
            self._start(ends)

    async def _send(
        self, client: Client, tunnel: _Tunnel, push: TunnelPush, endpoint: SealedEndpoint
    ) -> None:
        try:
            answer = await self._sent(client, tunnel, push, endpoint, again=False)
        except LineLost:
            # The stream sees that the tunnel is gone.
            return
        reach("tunnel-answered")
        # Without the database, the stream sends it again.
        with suppress(psycopg.Error, PoolTimeout):
            async with client.pool.connection() as state:
                await give_answer(state, push.id, answer)

    async def _sent(
        self,
        client: Client,
        tunnel: _Tunnel,
        push: TunnelPush,
        endpoint: SealedEndpoint,
        *,
        again: bool,
    ) -> TunnelAnswer:
        """Send a push, with its headers as of now.

        Raises:
            LineLost
        """
        settings = client.settings
        credentials = credentials_of(endpoint, Keyring(settings.encryption_keys), settings)
        if credentials.problem is not None:
            return TunnelAnswer(None, {}, b"", error=credentials.problem)
        given = Push(
            endpoint.url, push.body, push.batch_id, push.attempt, push.timeout_s, credentials
        )
        try:
            headers = headers_of(given)
        except ConfigurationError as error:
            return TunnelAnswer(None, {}, b"", error=str(error))
        if push.is_test:
            headers["triggerkit-test"] = "1"
        path = endpoint.url.removeprefix(LOCALHOST)
        return await tunnel.line.push(
            endpoint.name, path, headers, push.body, push.timeout_s, again=again
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="tunnel")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task
