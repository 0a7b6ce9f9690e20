"""Writes outcomes in bulk: those that come while one transaction commits go into the next."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence

import psycopg

from triggerkit.failpoints import reach
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.run import Outcome, ReadyRun, RunError, storable
from triggerkit.runs.transport.base import Transport
from triggerkit.state.faults import blames_values
from triggerkit.state.threads import LastingThread

logger = logging.getLogger(__name__)

#: Most outcomes in one transaction.
MAX_OUTCOMES = 1000

#: Seconds between tries while Postgres is away.
RETRY_S = 0.5


class Completions:
    """A thread that writes outcomes; `put` never blocks."""

    def __init__(
        self,
        open_claims: Callable[[], RunClaims],
        transport: Transport,
        before: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        """`open_claims` makes a connection of the thread's own, again after each loss. `before` is
        called with the runs whose outcomes are written next."""
        self._before = before
        self._open_claims = open_claims
        self._transport = transport
        self._claims: RunClaims | None = None
        self._queue: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._has_ended = False
        self._thread = LastingThread(self._run, "completions")

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Have `outcome` written."""
        self._queue.put(outcome)

    def stop(self) -> None:
        """Write what is left, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._has_ended:
            outcomes, self._has_ended = self._gather()
            if outcomes:
                self._before([outcome.run.id for outcome in outcomes])
                self._write(outcomes)
        self._disconnect()

    def _gather(self) -> tuple[list[Outcome], bool]:
        outcomes: list[Outcome] = []
        item = self._queue.get()
        while item is not None:
            outcomes.append(item)
            if len(outcomes) >= MAX_OUTCOMES:
                return outcomes, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return outcomes, False
        return outcomes, True

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Write `outcomes` together; one that cannot be stored must not hold up the others."""
        try:
            ready = self._complete(outcomes)
        except Exception as error:
            if len(outcomes) == 1:
                self._write_failed(outcomes[0], error)
            else:
                for outcome in outcomes:
                    self._write([outcome])
        else:
            self._push(ready)

    def _write_failed(self, outcome: Outcome, error: Exception) -> None:
        logger.error("cannot store the outcome of %s: %s", outcome.run.id, error)
        text = f"the outcome cannot be stored: {storable(str(error))}"
        failed = Outcome(outcome.run, "failed", error=RunError(type(error).__name__, text, ""))
        try:
            self._push(self._complete([failed]))
        except Exception:
            logger.exception("%s stays as it is until its worker ends", outcome.run.id)

    def _push(self, ready: list[ReadyRun]) -> None:
        if not ready:
            return
        try:
            self._transport.push(ready)
        except Exception:
            # The keeper finds what was not pushed.
            logger.exception("%d runs could not be pushed", len(ready))

    def _complete(self, outcomes: Sequence[Outcome]) -> list[ReadyRun]:
        """Write `outcomes`, however long Postgres is away.

        Raises:
            Exception: no further try can help: one of them is to blame.
        """
        while True:
            try:
                self._claims = self._claims or self._open_claims()
                ready = _written(self._claims, outcomes)
                reach("completion-written")
                return ready
            except psycopg.Error as error:
                if blames_values(error):
                    raise
                # Written twice does nothing: the attempt's number fences it.
                logger.warning("outcomes wait for Postgres (%s)", error)
                self._disconnect()
                time.sleep(RETRY_S)

    def _disconnect(self) -> None:
        if self._claims is not None:
            self._claims.close()
            self._claims = None


def _written(claims: RunClaims, outcomes: Sequence[Outcome]) -> list[ReadyRun]:
    """Write `outcomes`; runs that are handed back are queued as if they had not been claimed."""
    ended = [outcome for outcome in outcomes if outcome.status != "queued"]
    back = [outcome.run for outcome in outcomes if outcome.status == "queued"]
    ready = claims.complete(ended) if ended else []
    return ready + (claims.give_back(back) if back else [])
