"""A thread with a connection to RabbitMQ: whatever is done over it is done there.

The client is not for several threads, and answers heartbeats only while it is waited on.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from triggerkit.runs.transport.base import TransportAway
from triggerkit.runs.transport.rabbitmq.broker import AWAY, IdBroker, as_away

T = TypeVar("T")

#: Seconds one wait of the thread may last. Its end can be woken.
WAIT_S = 5.0

#: Seconds after which RabbitMQ counts as away when a job is not done.
TIMEOUT_S = 3.0


class BrokerConnection:
    """Connects when there is a job, and again when there is one after a loss."""

    def __init__(
        self,
        broker: IdBroker,
        *,
        between: Callable[[], float] = lambda: WAIT_S,
        lost: Callable[[TransportAway], None] = lambda _: None,
    ) -> None:
        """`between` is called after each wait for the connection, and returns the seconds of the
        next; `lost` when there is no connection any more, or none could be made."""
        self._broker = broker
        self._between = between
        self._lost = lost
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._there = threading.Event()
        self._closing = False
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have `job` done; its future raises `TransportAway` when it cannot be."""
        future: Future[T] = Future()
        self._jobs.append((future, job))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
                self._thread.start()
        self.wake()
        return future

    def call(self, job: Callable[[], T]) -> T:
        """Have `job` done, and wait for what it returns.

        Raises:
            TransportAway: it cannot be done, or was not for a while.
        """
        return answer(self.submit(job))

    def wake(self) -> None:
        """End a wait of the thread."""
        self._there.set()
        connection = self._connection
        if connection is not None:
            # One that is closed ends its wait by itself.
            with contextlib.suppress(*AWAY):
                connection.add_callback_threadsafe(_nothing)

    def close(self) -> None:
        """Do nothing more, and close the connection."""
        self._closing = True
        self.wake()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._do_jobs()
                if self._connection is None:
                    self._there.wait()
                else:
                    self._connection.process_data_events(time_limit=self._between())
            except Exception as error:
                # The client raises all kinds when a connection breaks under it.
                self._drop()
                self._lost(as_away(error))
        with contextlib.suppress(Exception):
            if self._connection is not None:
                self._do_jobs()
        self._drop()

    def _do_jobs(self) -> None:
        self._there.clear()
        while self._jobs:
            future, job = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                self._connection = self._broker.connection
                future.set_result(job())
                # It may be another one by now.
                self._connection = self._broker.connection
            except Exception as error:
                if not future.done():
                    future.set_exception(as_away(error))
                raise

    def _drop(self) -> None:
        self._connection = None
        with contextlib.suppress(Exception):
            del self._broker.connection


def answer(future: Future[T]) -> T:
    """Return what a job returned; see `BrokerConnection.call`."""
    try:
        return future.result(TIMEOUT_S)
    except TimeoutError:
        raise TransportAway(f"no answer for {TIMEOUT_S:.0f} s") from None


def _nothing() -> None:
    """Ends a wait by being called."""
