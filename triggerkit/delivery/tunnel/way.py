"""Push through tunnels: to endpoints on somebody's own machine, over the process that holds one.

The stream and that process may be on two machines, of which neither knows where the other is: a
push goes by the state's database, which both reach.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID, uuid4
from zlib import crc32

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.consumers.parked.message import Head
from triggerkit.consumers.tunnels.members import Held, open_tunnels
from triggerkit.consumers.tunnels.pushes import (
    TAKE_S,
    Looked,
    TunnelAnswer,
    TunnelPush,
    ask,
    forget,
    look,
)
from triggerkit.delivery.http.connection import MAX_ANSWER_BYTES
from triggerkit.delivery.push import Answer, Push, read_answer
from triggerkit.errors import CannotConnect
from triggerkit.failpoints import reach
from triggerkit.log.entry import Entry
from triggerkit.state.channels import TUNNELS
from triggerkit.state.connect import connect
from triggerkit.state.recovery import Recovery

logger = logging.getLogger(__name__)

#: Seconds between two looks at what no notification told of: a process that died says nothing.
LOOK_S = 1.0

#: Seconds that are added to a push's deadline for its way, and the slowest line that is waited for.
WAY_S = 120.0
SLOWEST_BYTES_PER_S = 8 * 1024

#: Seconds after which a push that nobody takes is given up; behind the end of its taking.
UNTAKEN_S = TAKE_S + 2

_ANSWER = "answer "


class TunnelWay:
    """The tunnels as the stream sees them. It looks at them from the first local endpoint on."""

    def __init__(self, dsn: str, states: AsyncConnectionPool) -> None:
        self._dsn = dsn
        self._states = states
        self._open: dict[int, list[Held]] = {}
        self._moved = asyncio.Event()
        #: Commands that were seen, after the first look, and how many came since, by endpoint.
        self._seen: set[str] | None = None
        self._openings: Counter[int] = Counter()
        self._answered: dict[UUID, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def moved(self) -> asyncio.Event:
        """An event that is set when a tunnel was opened or has ended."""
        return self._moved

    def is_open(self, endpoint: SealedEndpoint | None) -> bool:
        """Return whether a tunnel to the endpoint is open."""
        self._start()
        return endpoint is not None and endpoint.id in self._open

    def openings(self, endpoint_id: int) -> int:
        """Return how many commands have opened a tunnel to the endpoint; one that connects anew is
        the same."""
        self._start()
        return self._openings[endpoint_id]

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def send(self, endpoint_id: int, push: Push, place: int) -> Answer:
        """Make one attempt through a tunnel to the endpoint: where several share it, through the
        same for each push of one `place`. Faults are answers, as those of `Pusher.send`."""
        held = self._open.get(endpoint_id)
        if not held:
            return _failed("no tunnel to the endpoint is open")
        tunnel = held[place % len(held)]
        given = TunnelPush(
            uuid4(), tunnel.id, push.batch_id, push.attempt, push.timeout_s, False, push.body
        )
        answered = self._answered[given.id] = asyncio.Event()
        try:
            async with self._states.connection() as state:
                if not await ask(state, given, tunnel.serve):
                    return _ended(tunnel)
            reach("tunnel-asked")
            return await self._answer(given, tunnel, answered)
        finally:
            del self._answered[given.id]
            await self._forget(given.id)

    async def _answer(self, push: TunnelPush, tunnel: Held, answered: asyncio.Event) -> Answer:
        now = asyncio.get_running_loop().time
        begun = now()
        way_s = WAY_S + (len(push.body) + MAX_ANSWER_BYTES) / SLOWEST_BYTES_PER_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await answered.wait()
            async with self._states.connection() as state:
                looked = await look(state, push.id)
            if looked is not None and looked.answer is not None:
                return judged(looked.answer)
            if looked is None or not self._holds(tunnel):
                return _ended(tunnel)
            if not looked.is_taken and now() - begun > UNTAKEN_S:
                return _failed(f"the server of the tunnel of {tunnel.user} does not take it")
            if now() - begun > push.timeout_s + way_s:
                return _failed(f"the tunnel of {tunnel.user} is too slow: nothing came back")

    def _holds(self, tunnel: Held) -> bool:
        return any(held.id == tunnel.id for held in self._open.get(tunnel.endpoint_id, ()))

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="tunnels")

    async def _forget(self, push_id: UUID) -> None:
        # Without the database, whoever cleans it up finds it.
        with suppress(psycopg.Error, PoolTimeout):
            async with self._states.connection() as state:
                await forget(state, push_id)

    async def _follow(self) -> None:
        losses = (psycopg.Error, CannotConnect)
        recovery = Recovery("the connection that looks at tunnels", losses, logger)
        while True:
            async with recovery.attempt(), await connect(self._dsn, "triggerkit tunnels") as state:
                await state.execute(f"LISTEN {TUNNELS}")
                recovery.succeeded()
                while True:
                    await self._look(state)
                    await self._listen(state)

    async def _listen(self, state: psycopg.AsyncConnection) -> None:
        """Take in notifications until tunnels are to be looked at."""
        until = asyncio.get_running_loop().time() + LOOK_S
        while (left_s := until - asyncio.get_running_loop().time()) > 0:
            async for notice in state.notifies(timeout=left_s, stop_after=1):
                if notice.payload.startswith(_ANSWER):
                    self._tell(notice.payload.removeprefix(_ANSWER))
                elif not notice.payload:
                    until = 0.0

    def _tell(self, push_id: str) -> None:
        with suppress(ValueError):
            if (answered := self._answered.get(UUID(push_id))) is not None:
                answered.set()

    async def _look(self, state: psycopg.AsyncConnection) -> None:
        before, self._open = self._open, await open_tunnels(state)
        self._count()
        if before != self._open:
            self._moved.set()
            self._moved = asyncio.Event()
            for answered in self._answered.values():
                # Its tunnel may be the one that has ended.
                answered.set()

    def _count(self) -> None:
        """Count the commands that were not seen before; those of the first look opened theirs
        before this process began."""
        found = [held for tunnels in self._open.values() for held in tunnels]
        if self._seen is not None:
            self._openings.update(h.endpoint_id for h in found if h.instance not in self._seen)
        self._seen = (self._seen or set()) | {held.instance for held in found}


async def test_through(
    state: psycopg.AsyncConnection, tunnel: Held, batch_id: str, body: bytes, timeout_s: float
) -> TunnelAnswer:
    """Send a test message through a tunnel; returns what came back, or why nothing did."""
    push = TunnelPush(uuid4(), tunnel.id, batch_id, 1, timeout_s, True, body)
    try:
        if not await ask(state, push, tunnel.serve):
            return _nothing(_ended(tunnel))
        until = asyncio.get_running_loop().time() + timeout_s
        looked: Looked | None = Looked(is_taken=False, answer=None)
        while looked is not None and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
            looked = await look(state, push.id)
            if looked is not None and looked.answer is not None:
                return looked.answer
        is_gone = looked is None
        return _nothing(_ended(tunnel) if is_gone else _failed("nothing came back in time"))
    finally:
        await forget(state, push.id)


def judged(answer: TunnelAnswer) -> Answer:
    """Return what an answer that came through a tunnel means for the batch."""
    if answer.error is not None or answer.status is None:
        error = answer.error or "no answer came"
        return Answer("endpoint_failed", answer.status, error, is_suspect=answer.is_suspect)
    return read_answer(answer.status, answer.headers, answer.body, is_cut=answer.is_cut)


def place_of(consumer: Consumer, entry: Entry) -> int:
    """Return the place of the push of `entry`: the same for all messages of a key."""
    if consumer.definition.group_by is None:
        return entry.partition
    return crc32(consumer.key_of(entry).encode())


def place_of_parked(head: Head) -> int:
    """Return the place of a parked message's push, which is that of its key."""
    return head.partition if head.partition >= 0 else crc32(head.key.encode())


async def first_of(events: Sequence[asyncio.Event], seconds: float | None = None) -> None:
    """Return once one of the events is set, or after so many seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _ended(tunnel: Held) -> Answer:
    return _failed(f"the tunnel of {tunnel.user} ended before an answer came")


def _nothing(answer: Answer) -> TunnelAnswer:
    return TunnelAnswer(None, {}, b"", error=answer.error)


def _failed(error: str) -> Answer:
    # The line's fault: the batch has no part in it.
    return Answer("endpoint_failed", None, error)
