"""Whom a failure is blamed on: never on a message, unless others go through at the same time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from triggerkit.delivery.isolation import HALVE, PARK, Health, Suspicion
from triggerkit.state.backoff import backoff_s

#: Seconds of simulated time in which no good message may be parked.
A_DAY_S = 24 * 3600.0

#: Whether the endpoint is well at a time, in seconds; may be random.
Endpoint = Callable[[float], bool]


@pytest.fixture(autouse=True)
def chance() -> None:
    """The same chance in every run: what is shown is a probability, not a certainty."""
    random.seed(1)


def fail(suspicion: Suspicion, times: int = 1) -> None:
    for _ in range(times):
        suspicion.sending()
        suspicion.failed(suspect=True)


def deliver(suspicion: Suspicion) -> None:
    suspicion.sending()
    suspicion.delivered(1)


def test_nothing_is_blamed_while_nothing_else_goes_through() -> None:
    health = Health()
    lanes = [Suspicion(health) for _ in range(8)]
    for _ in range(100):
        for lane in lanes:
            fail(lane)
            assert not lane.is_proven(1)
            assert not lane.is_proven(100)


def test_a_batch_that_fails_while_others_go_through_is_blamed() -> None:
    health = Health()
    batch, other = Suspicion(health), Suspicion(health)
    for _ in range(HALVE.failures):
        fail(batch)
        assert not batch.is_proven(100)
        deliver(other)
    fail(batch)
    assert batch.is_proven(100)
    assert not batch.is_proven(1), "a message alone takes more proof"


def test_several_batches_are_blamed_while_others_go_through() -> None:
    health = Health()
    bad, good = [Suspicion(health) for _ in range(7)], Suspicion(health)
    for _ in range(2 * PARK.failures):
        for lane in bad:
            fail(lane)
            deliver(good)
    assert all(lane.is_proven(1) for lane in bad)


def test_what_was_delivered_before_a_failure_says_nothing_of_it() -> None:
    health = Health()
    batch, other = Suspicion(health), Suspicion(health)
    fail(batch)
    for _ in range(1000):
        deliver(other)
    fail(batch, 100)
    assert batch.counted == 1
    assert not batch.is_proven(100)


def test_a_push_that_was_sent_before_is_no_witness() -> None:
    health = Health()
    batch, other = Suspicion(health), Suspicion(health)
    other.sending()
    fail(batch)
    other.delivered(1)
    assert batch.counted == 0


def test_a_push_that_fails_right_after_is_a_witness_for_the_batch() -> None:
    health = Health()
    batch, other, third = Suspicion(health), Suspicion(health), Suspicion(health)
    fail(batch)
    fail(other)
    deliver(third)
    assert (batch.counted, other.counted) == (0, 1)


def test_an_answer_that_blames_the_sender_never_counts() -> None:
    health = Health()
    batch, other = Suspicion(health), Suspicion(health)
    for _ in range(100):
        batch.sending()
        batch.failed(suspect=False)
        assert not batch.is_proven(1)
        deliver(other)
    assert batch.counted == 0


def test_failures_that_passed_make_proof_harder() -> None:
    health = Health()
    batch, other = Suspicion(health), Suspicion(health)
    for _ in range(PARK.failures):
        fail(batch)
        deliver(other)
        fail(other, 3)
        deliver(other)
    fail(batch)
    assert batch.counted == PARK.failures
    assert not batch.is_proven(1)


def test_halves_that_are_both_taken_show_that_the_endpoint_failed_by_itself() -> None:
    health = Health()
    batch = Suspicion(health)
    fail(batch, 4)
    batch.halved(last=10)
    batch.sending()
    batch.delivered(5)
    assert batch.is_within(5)
    assert health.recovered == 0
    batch.sending()
    batch.delivered(10)
    assert health.recovered == 4
    assert not health.doubts


@dataclass
class Simulation:
    """Lanes that push single messages to an endpoint, in simulated time."""

    endpoint: Endpoint
    per_second: float
    poisoned: int = 0
    health: Health = field(default_factory=Health)
    parked_at: list[tuple[float, bool]] = field(default_factory=list)

    def run(self, until_s: float) -> None:
        """Every lane in turns: `poisoned` of them have a message that always fails."""
        lanes = [Suspicion(self.health) for _ in range(8)]
        turns = [(random.random(), number, 0) for number in range(8)]
        bad = set(range(self.poisoned))
        while turns[0][0] < until_s:
            at, number, attempt = heapq.heappop(turns)
            lane, attempt = lanes[number], attempt + 1
            lane.sending()
            if number not in bad and self.endpoint(at):
                lane.delivered(1)
                heapq.heappush(turns, (at + random.expovariate(self.per_second), number, 0))
                continue
            lane.failed(suspect=True)
            if lane.is_proven(1):
                self.parked_at.append((at, number in bad))
                bad.discard(number)
                lane.parked()
                attempt = 0
            heapq.heappush(turns, (at + backoff_s(max(attempt, 1)), number, attempt))


def at_random(share: float) -> Endpoint:
    """Fails by chance."""
    return lambda _at: random.random() >= share


def in_turns(well_s: float, away_s: float) -> Endpoint:
    """Is well for a while and away for a while."""
    return lambda at: at % (well_s + away_s) < well_s


FLAPPING = {
    "one in twenty": at_random(0.05),
    "one in two": at_random(0.5),
    "nine in ten": at_random(0.9),
    "a second each": in_turns(1, 1),
    "ten seconds each": in_turns(10, 10),
    "two minutes each": in_turns(120, 120),
    "a minute in ten": in_turns(540, 60),
}


@pytest.mark.parametrize("per_second", [0.02, 1])
@pytest.mark.parametrize("endpoint", FLAPPING.values(), ids=FLAPPING.keys())
def test_no_good_message_is_parked_by_an_endpoint_that_flaps(
    endpoint: Endpoint, per_second: float
) -> None:
    simulation = Simulation(endpoint, per_second)
    simulation.run(A_DAY_S if per_second < 1 else A_DAY_S / 8)
    assert simulation.parked_at == []


@pytest.mark.parametrize("poisoned", [1, 3])
@pytest.mark.parametrize("endpoint", [at_random(0), at_random(0.05)], ids=["well", "flaps"])
def test_what_always_fails_is_found(endpoint: Endpoint, poisoned: int) -> None:
    simulation = Simulation(endpoint, per_second=1, poisoned=poisoned)
    simulation.run(4 * 3600)
    assert [is_bad for _, is_bad in simulation.parked_at] == [True] * poisoned
