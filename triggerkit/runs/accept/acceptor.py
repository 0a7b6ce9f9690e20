"""Accepting runs: durable in Postgres before the answer, pushed to the workers after it.

What is asked for in one turn of the event loop, or while others are written, is written together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import NotDurable
from triggerkit.failpoints import reach
from triggerkit.runs.accept.insert import CHUNK
from triggerkit.runs.accept.transaction import SHARED_WAIT_S, accept_on
from triggerkit.runs.run import NewRun, ReadyRun, RunRef
from triggerkit.runs.transport.base import AsyncTransport
from triggerkit.state.faults import is_away, is_read_only

#: Seconds for which Postgres may be away; then the sender is told to come again.
PATIENCE_S = 5.0

#: Seconds between tries.
RETRY_S = 0.1

#: Most transactions at once. What comes meanwhile is written together by the next.
MOST_WRITERS = 4

#: Seconds that a run by itself waits in one try for a key that another transaction holds.
HELD_WAIT_S = 0.1

#: Most runs with held keys that are tried at once.
MOST_HELD_TRIES = 2

_READ_ONLY = (
    "the run could not be written: the state database is read-only, as a standby is; "
    "check where TRIGGERKIT_STATE_URL, else DATABASE_URL, leads"
)


@dataclass(frozen=True, slots=True)
class _Request:
    """Runs that are accepted together or not at all."""

    runs: Sequence[NewRun]
    handles: asyncio.Future[list[RunRef]]

    @property
    def is_debounced(self) -> bool:
        options = self.runs[0].options
        return options is not None and options.debounce_key is not None

    @property
    def keys(self) -> set[tuple[str, str, str]]:
        """What another transaction can hold: task, kind of key, key."""
        return {
            (run.task, kind, key)
            for run in self.runs
            for kind, key in (
                ("idempotency", run.idempotency_key),
                ("concurrency", run.concurrency_key),
                ("debounce", None if run.options is None else run.options.debounce_key),
            )
            if key is not None
        }


class Acceptor:
    """Accepts runs, on one event loop. Accepted means durable: Redis may be away, Postgres may not.

    A connection that was lost, with or without an answer, is no failure: the ids tell whether the
    runs were made.
    """

    def __init__(self, pool: AsyncConnectionPool, transport: AsyncTransport) -> None:
        self._pool = pool
        self._transport = transport
        self._waiting: deque[_Request] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        #: Requests whose keys another transaction holds: they wait apart from all others.
        self._held: dict[asyncio.Task[None], set[tuple[str, str, str]]] = {}
        self._held_tries = asyncio.Semaphore(MOST_HELD_TRIES)

    async def accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Make `runs` durable, push those that can run, and return a handle for each, in order.

        A run whose idempotency key its task has seen before is not made again: its handle is the
        first one's.

        Raises:
            NotDurable: Postgres is away, or another transaction holds a run's key; of a thousand
                runs all or none were accepted.
            InvalidPayload: Postgres cannot store a text of it; that thousand was not accepted.
        """
        handles: list[RunRef] = []
        for start in range(0, len(runs), CHUNK):
            handles += await self._accepted(runs[start : start + CHUNK])
        return handles

    async def close(self) -> None:
        """Wait until what was asked for is written."""
        await asyncio.gather(*self._writers, return_exceptions=True)
        await asyncio.gather(*self._held, return_exceptions=True)

    async def _accepted(self, runs: Sequence[NewRun]) -> list[RunRef]:
        request = _Request(runs, asyncio.get_running_loop().create_future())
        if self._is_held(request):
            self._hold(request)
            return await request.handles
        self._waiting.append(request)
        if len(self._writers) < MOST_WRITERS:
            writer = asyncio.create_task(self._write())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await request.handles

    async def _write(self) -> None:
        while self._waiting:
            await self._answer(self._together())

    def _together(self) -> list[_Request]:
        """Take what waits, as far as one transaction goes. A debounced run stands alone."""
        group = [self._waiting.popleft()]
        count = len(group[0].runs)
        while self._waiting and not group[0].is_debounced:
            following = self._waiting[0]
            count += len(following.runs)
            if count > CHUNK or following.is_debounced:
                break
            group.append(self._waiting.popleft())
        return group

    async def _answer(self, group: list[_Request]) -> None:
        try:
            handles = await self._written([run for one in group for run in one.runs])
        except psycopg.errors.LockNotAvailable:
            await self._set_apart(group)
        except NotDurable as error:
            # Postgres was away for long enough: who came meanwhile need not wait as long again.
            _fail([*group, *self._waiting], error)
            self._waiting.clear()
        except Exception as error:
            if len(group) == 1:
                _fail(group, error)
                return
            # One of them is to blame: each by itself tells which.
            for request in group:
                await self._answer([request])
        except BaseException:
            _fail(group, NotDurable())
            raise
        else:
            for request in group:
                part, handles = handles[: len(request.runs)], handles[len(request.runs) :]
                _succeed(request, part)

    def _is_held(self, request: _Request) -> bool:
        return bool(self._held) and not request.keys.isdisjoint(set().union(*self._held.values()))

    def _hold(self, request: _Request) -> None:
        waiter = asyncio.create_task(self._answer_held(request))
        self._held[waiter] = request.keys
        waiter.add_done_callback(self._held.pop)

    async def _set_apart(self, group: list[_Request]) -> None:
        """Let those wait whose keys are held, and answer the others."""
        for request in group:
            if self._is_held(request):
                self._hold(request)
                continue
            try:
                handles = await self._written(request.runs, is_again=True, wait_s=HELD_WAIT_S)
            except psycopg.errors.LockNotAvailable:
                self._hold(request)
            except Exception as error:
                _fail([request], error)
            except BaseException:
                _fail(group, NotDurable())
                raise
            else:
                _succeed(request, handles)

    async def _answer_held(self, request: _Request) -> None:
        """Try again and again, with a connection for as long as one try takes."""
        now = asyncio.get_running_loop().time
        until = now() + PATIENCE_S
        while not request.handles.done():
            try:
                async with self._held_tries:
                    handles = await self._written(request.runs, is_again=True, wait_s=HELD_WAIT_S)
            except psycopg.errors.LockNotAvailable as error:
                if now() >= until:
                    _fail([request], _held_error(request, error))
                    return
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                _fail([request], error)
            except BaseException:
                _fail([request], NotDurable())
                raise
            else:
                _succeed(request, handles)

    async def _written(
        self, runs: Sequence[NewRun], *, is_again: bool = False, wait_s: float = SHARED_WAIT_S
    ) -> list[RunRef]:
        handles, ready = await self._durable(runs, is_again, wait_s)
        reach("run-inserted")
        await self._transport.push(ready)
        reach("run-pushed")
        return handles

    async def _durable(
        self, runs: Sequence[NewRun], is_again: bool, wait_s: float
    ) -> tuple[list[RunRef], list[ReadyRun]]:
        now = asyncio.get_running_loop().time
        until = now() + PATIENCE_S
        reason: str | None = None
        while True:
            try:
                async with self._pool.connection(timeout=max(0.0, until - now())) as connection:
                    return await accept_on(connection, runs, is_again=is_again, wait_s=wait_s)
            except psycopg.errors.LockNotAvailable:
                # Not Postgres is away: a key is held.
                raise
            except psycopg.errors.UniqueViolation:
                # The try whose answer was lost was still under way.
                if not is_again or now() >= until:
                    raise
            except psycopg.Error as error:
                if not is_away(error):
                    raise
                if is_read_only(error):
                    reason = _READ_ONLY
                if now() >= until:
                    raise NotDurable(reason) from error
                # The pool's other connections are probably broken too.
                await self._pool.check()
            is_again = True
            await asyncio.sleep(RETRY_S)


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        if not request.handles.done():
            request.handles.set_exception(error)


def _succeed(request: _Request, handles: list[RunRef]) -> None:
    if not request.handles.done():
        request.handles.set_result(handles)


def _held_error(request: _Request, cause: Exception) -> NotDurable:
    kinds = " or ".join(sorted({kind for _, kind, _ in request.keys}))
    error = NotDurable(
        f"the run could not be written: for {PATIENCE_S:g} s another transaction has held its "
        f"{kinds} key, as one that triggered with connection= does until it ends; end it soon "
        "after the trigger, then send the run again"
    )
    error.__cause__ = cause
    return error
