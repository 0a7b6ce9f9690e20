"""Takes ids of ready runs and claims the runs: no more than there are free slots, or, where runs
take next to no time, no more than the slots get done in a moment."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from secrets import token_hex

import psycopg

from triggerkit.failpoints import reach
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.run import ClaimedRun, ReadyRun, is_run_id
from triggerkit.runs.transport.base import Room, Source, Taken, TransportAway
from triggerkit.worker.fetch.duration_estimate import DurationEstimate
from triggerkit.worker.fetch.slots import Slots
from triggerkit.worker.fetch.solitude import Solitude

logger = logging.getLogger(__name__)

#: Seconds one wait may last. Its end can be woken, so that a stop does not wait for it.
WAIT_S = 5.0

#: Seconds after which a claim without an answer is certainly over.
UNANSWERED_S = 60.0

#: Seconds between tries while the transport or Postgres is away.
RETRY_S = 0.5

#: Seconds between two looks while a run executes alone, or waits for that.
LOOK_S = 0.1

#: Most runs of one claim.
MAX_CLAIM = 500


class Fetcher:
    """Claims runs for one kind of slots; one thread calls `claim`."""

    def __init__(
        self,
        source: Source,
        open_claims: Callable[[], RunClaims],
        slots: Slots,
        durations: DurationEstimate | None = None,
        solitude: Solitude | None = None,
    ) -> None:
        """`open_claims` makes a connection of its own, again after each loss. With
        `durations`, a slot may be given several runs that are known to be short. All fetchers of a
        process share its `solitude`."""
        self._source = source
        self._open_claims = open_claims
        self._slots = slots
        self._durations = durations
        self._solitude = solitude or Solitude(slots)
        self._claims: RunClaims | None = None
        #: The names of claims whose answers did not come, and when they were made.
        self._unanswered: dict[str, float] = {}
        self._closed = threading.Event()
        self._ended = threading.Event()

    def claim(self, wait_s: float = WAIT_S) -> list[ClaimedRun]:
        """Wait for ready runs and claim them; empty when there were none for a while."""
        try:
            if given := self._runs_of_lost_claims():
                return given
            if not self._solitude.is_open:
                return self._claim_alone()
            free = self._slots.wait(wait_s)
            taken = self._source.take(wait_s) if free and not self._closed.is_set() else None
            if taken is None:
                return []
            reach("run-popped")
            found = [taken]
            # What came after a wait came alone: asking for more would only delay it.
            if taken.at_once:
                found += self._more(taken.task, free)
            runs = self._claim_in_postgres(found)
            # What is claimed is ours, whether the transport hears of it or not.
            with contextlib.suppress(TransportAway):
                self._source.acknowledge()
            reach("run-claimed")
            return runs
        except (TransportAway, psycopg.Error) as error:
            # Ids that were taken and not claimed are still queued in Postgres: the keeper pushes
            # them again.
            logger.warning("cannot take runs (%s); trying again", error)
            self._closed.wait(RETRY_S)
            return []

    def give_back(self, runs: list[ClaimedRun]) -> list[ReadyRun]:
        """Undo the claim of runs that did not begin; they are to be pushed.

        It is tried until Postgres has answered: nobody else would take them from a worker that
        lives. What was given back before, without an answer, is not this worker's any more.
        """
        for run in runs:
            self._solitude.end(run.id)
        while True:
            try:
                with self._connected() as claims:
                    return claims.give_back(runs)
            except psycopg.Error as error:
                logger.warning("cannot hand back runs while Postgres is away (%s)", error)
                time.sleep(RETRY_S)

    def stop(self) -> None:
        """Take nothing more."""
        self._closed.set()
        self._slots.close()
        self._source.wake()

    def wait_until_closed(self, timeout_s: float) -> None:
        """Wait for the close, at most so long."""
        self._ended.wait(timeout_s)

    def close(self) -> None:
        """Close the connections, once nobody calls `claim`."""
        self._ended.set()
        self._source.close()
        if self._claims is not None:
            self._claims.close()

    @property
    def is_stopped(self) -> bool:
        """Return whether nothing more is taken."""
        return self._closed.is_set()

    def _more(self, task: str, free: int) -> list[Taken]:
        """Take what there is room for beside the first run of `task`: of it, then of others."""
        room = Room(free, MAX_CLAIM, self._runs_per_slot)
        room.took(task, 1)
        ids = self._source.more(room.of(task))
        room.took(task, len(ids))
        return [Taken(task, ids, True), *self._source.others(room)]

    def _runs_per_slot(self, task: str) -> int:
        return 1 if self._durations is None else self._durations.runs_per_slot(task)

    def _claim_in_postgres(self, found: list[Taken]) -> list[ClaimedRun]:
        ids = [run_id for taken in found for run_id in taken.ids]
        known = [run_id for run_id in ids if is_run_id(run_id)]
        if len(known) < len(ids):
            logger.warning(
                "dropped %d entries of the transport that are not run ids", len(ids) - len(known)
            )
        if not known:
            return []
        with self._solitude.claiming() as is_open, self._connected() as claims:
            if not is_open:
                # The keeper pushes again what was taken.
                return []
            # Looked for among the tasks that the ids are of: a worker may know thousands.
            tasks = list(dict.fromkeys(taken.task for taken in found))
            runs = self._claimed(claims, known, tasks)
            if len(runs) < len(known) and (suspects := claims.suspects_among(known)):
                self._solitude.want(suspects, self)
        return runs

    def _claim_alone(self) -> list[ClaimedRun]:
        """Claim the run that is to execute alone in this process, if it is time."""
        with self._solitude.claiming():
            run_id = self._solitude.turn_of(self)
            if run_id is not None:
                self._solitude.begin()
                try:
                    with self._connected() as claims:
                        if runs := self._claimed(claims, [run_id], None, with_suspects=True):
                            return runs
                    self._solitude.end(run_id)
                except BaseException:
                    self._solitude.end(run_id)
                    raise
        self._closed.wait(LOOK_S)
        return []

    def _claimed(
        self,
        claims: RunClaims,
        run_ids: list[str],
        tasks: list[str] | None,
        *,
        with_suspects: bool = False,
    ) -> list[ClaimedRun]:
        name = token_hex(8)
        self._unanswered[name] = time.monotonic()
        runs = claims.claim(run_ids, name, tasks=tasks, with_suspects=with_suspects)
        del self._unanswered[name]
        return runs

    def _runs_of_lost_claims(self) -> list[ClaimedRun]:
        """Return the runs of a claim whose answer was lost with its connection.

        The server may still be at it: it is asked again until nothing can come of it any more.
        """
        for name, asked_at in list(self._unanswered.items()):
            with self._connected() as claims:
                given = claims.claimed_as(name)
            if given or time.monotonic() - asked_at > UNANSWERED_S:
                del self._unanswered[name]
            if given:
                return given
        return []

    @contextlib.contextmanager
    def _connected(self) -> Iterator[RunClaims]:
        self._claims = self._claims or self._open_claims()
        try:
            yield self._claims
        except psycopg.Error:
            self._claims.close()
            self._claims = None
            raise
