"""Tell whether a failing batch or its endpoint is to blame, by what else is delivered meanwhile."""

from __future__ import annotations

from typing import NamedTuple


class Proof(NamedTuple):
    """Evidence needed to blame a batch: `failures` of it while others went through, and so many
    that an endpoint which fails by itself would bring them about with a probability of `chance`.
    """

    failures: int
    chance: float


#: Proof before a batch is halved: a mistake costs requests with other ids.
HALVE = Proof(3, 1e-2)

#: Proof before a message that is alone is parked: a mistake costs a good message its turn.
PARK = Proof(5, 1e-9)


#: Failed retries that wait for a witness at most; what is forgotten does not count.
MAX_UNWITNESSED = 1000


class Health:
    """The health of a consumer's endpoint, by all of its pushes."""

    __slots__ = ("blamed", "delivered", "doubts", "recovered", "sent", "unwitnessed")

    def __init__(self) -> None:
        self.sent = 0
        self.delivered = 0
        #: Failures of batches that were delivered later as they were: the endpoint's own.
        self.recovered = 0
        #: The lanes whose batch has failed, for others to witness.
        self.doubts: set[Suspicion] = set()
        #: Retries of parked messages that failed, by position: the number of the push. What is sent
        #: after it and answered first tells whether the endpoint was well.
        self.unwitnessed: dict[int, int] = {}
        #: Those of them whose last failure speaks against the message.
        self.blamed: set[int] = set()

    def failed_alone(self, position: int, number: int) -> None:
        """Note that the retry of the message at `position`, sent as push `number`, failed."""
        self.witnessed(number, ok=False)
        if len(self.unwitnessed) >= MAX_UNWITNESSED:
            del self.unwitnessed[next(iter(self.unwitnessed))]
        self.unwitnessed[position] = number

    def witnessed(self, number: int, *, ok: bool) -> None:
        """Note that the push `number` was answered: with success, or with a failure of the
        endpoint."""
        cleared = [position for position, at in self.unwitnessed.items() if at < number]
        for position in cleared:
            del self.unwitnessed[position]
        if ok:
            self.blamed.update(cleared)

    def is_blamed(self, position: int) -> bool:
        """Return whether the last failure of the retry at `position` speaks against it; asked
        once."""
        self.unwitnessed.pop(position, None)
        if position not in self.blamed:
            return False
        self.blamed.remove(position)
        return True


class Suspicion:
    """One lane's suspicion that its batch makes the endpoint fail.

    A failure speaks against the batch only if the endpoint was well at that time: the first push
    of another lane that was sent after it and answered was delivered. In an outage no failure
    counts. How many are needed depends on how often the endpoint fails without any reason in the
    batch: the share of failures among the pushes of batches that were taken in the end.
    """

    __slots__ = (
        "_baseline", "_failed", "_failures", "_health", "_inherited", "_number", "_until",
        "_witness", "counted",
    )  # fmt: skip

    def __init__(self, health: Health) -> None:
        self._health = health
        self._number = 0
        self._failed = False
        self._witness: bool | None = None
        self._baseline = (0, 0)
        #: Failures of the batch as it is, and of the larger ones it was part of.
        self._failures = 0
        self._inherited = 0
        self._until = 0
        #: Failures that speak against the batch.
        self.counted = 0

    def sending(self) -> None:
        """Note that an attempt is sent."""
        self._health.sent += 1
        self._number = self._health.sent
        self._failed = False
        self._witness = None

    def delivered(self, last: int) -> None:
        """Note that the batch up to position `last` was taken."""
        health = self._health
        health.delivered += 1
        if health.unwitnessed:
            health.witnessed(self._number, ok=True)
        if health.doubts:
            self._clear(last)
            self._tell(ok=True)

    def failed(self, *, suspect: bool) -> None:
        """Note that the attempt failed; `suspect` when the batch may be the reason."""
        health = self._health
        if health.unwitnessed:
            health.witnessed(self._number, ok=False)
        self._tell(ok=False)
        if not suspect:
            return
        if self not in health.doubts:
            health.doubts.add(self)
            self._baseline = (health.delivered, health.recovered)
        self._failures += 1
        self._failed = True
        self._count()

    def is_proven(self, messages: int) -> bool:
        """Return whether the batch of so many messages is to blame for the failure just noted."""
        proof = PARK if messages == 1 else HALVE
        if not self._failed or self.counted < proof.failures:
            return False
        delivered = self._health.delivered - self._baseline[0]
        recovered = self._health.recovered - self._baseline[1]
        # The rule of succession: of few pushes it is not concluded that the endpoint never fails.
        chance = (recovered + 1) / (delivered + recovered + 2)
        return chance**self.counted <= proof.chance

    def halved(self, last: int) -> None:
        """Note that the batch up to `last` is sent in halves, each with a count of its own."""
        self._inherited += self._failures
        self._failures = self.counted = 0
        self._until = last

    def parked(self) -> None:
        """Note that the reason was found and is out of the way."""
        self._health.doubts.discard(self)
        self._failures = self._inherited = self.counted = 0

    def is_within(self, last: int) -> bool:
        """Return whether the batch up to `last` leaves messages of a halved one to be sent."""
        return last < self._until

    def _clear(self, last: int) -> None:
        # All of what was halved was taken in the end: nothing in it had made the endpoint fail.
        self._health.recovered += self._failures
        self._failures = self.counted = 0
        if not self.is_within(last):
            self._health.recovered += self._inherited
            self._inherited = 0
            self._health.doubts.discard(self)

    def _tell(self, *, ok: bool) -> None:
        for doubt in self._health.doubts:
            if doubt is not self:
                doubt._witnessed(self._number, ok=ok)

    def _witnessed(self, number: int, *, ok: bool) -> None:
        if self._witness is None and number > self._number:
            self._witness = ok
            self._count()

    def _count(self) -> None:
        if self._failed and self._witness:
            self.counted += 1
