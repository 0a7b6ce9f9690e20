"""A bad receiver is waited for and gets the same again; a bad item alone is set aside."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest

from tests.acceptance.project import eventually, run_command
from tests.faults.rig.checker import check, explain
from tests.faults.rig.history import Bounds, Delivery, History
from tests.faults.rig.processes import Stream
from tests.faults.rig.receiver import Behaviour
from tests.faults.rig.scenario import IN_FLIGHT, OBSERVED, Scenario
from tests.faults.rig.truth import Connection

#: The deadline of one push in these tests, in seconds.
TIMEOUT_S = 3.0

#: How many requests are treated badly; then the receiver is well.
TIMES = 3


@pytest.fixture
def stream(scenario: Scenario) -> Iterator[Stream]:
    """A stream that pushes the rows of the scenario to its receiver."""
    scenario.prepare(rows_before=50, paths=[OBSERVED])
    with Stream(scenario.folder, ["triggerkit", "stream"], scenario.environment) as stream:
        yield stream


def arrived(scenario: Scenario, condition: Callable[[list[Delivery]], Any]) -> list[Delivery]:
    """Wait until what came fulfils `condition`."""

    def look() -> list[Delivery]:
        deliveries = scenario.receiver.deliveries(OBSERVED)
        return deliveries if condition(deliveries) else []

    return eventually(look, 40, "what should have come to the receiver")


def change_rows(scenario: Scenario, changes: int = 80) -> None:
    """Random changes, while the receiver is as it is."""
    seed = random.randrange(2**32)
    with scenario.changing(seed, per_second=200, keys=80) as workload:
        workload.until(changes, 30)


def judged(scenario: Scenario, stream: Stream, repeats: int = 0, drain_s: float = 30) -> History:
    """The run, drained, and without a violation."""
    history = scenario.history(OBSERVED, scenario.drain(drain_s))
    violations = check(history, Bounds(repeats=repeats, drain_s=drain_s))
    assert not violations, f"{explain(violations)}\n{stream.explain()}"
    return history


def batches(deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """One delivery of each attempt, by batch."""
    found: defaultdict[str, dict[int, Delivery]] = defaultdict(dict)
    for delivery in deliveries:
        found[delivery.batch_id].setdefault(delivery.attempt, delivery)
    return [list(attempts.values()) for attempts in found.values()]


def waits(deliveries: Sequence[Delivery]) -> list[float]:
    """Seconds from the end of each failed first attempt to the second."""
    return [a[1].started_at - a[0].ended_at for a in batches(deliveries) if len(a) > 1]


@pytest.mark.parametrize(
    ("behaviour", "shortest_wait_s"),
    [
        (Behaviour("status", TIMES, 500), 0.8),
        (Behaviour("status", TIMES, 503, retry_after="2"), 2.0),
        (Behaviour("status", TIMES, 429, retry_after="2"), 2.0),
        (Behaviour("status", TIMES, 401), 0.8),
        (Behaviour("reset", TIMES), 0.8),
        (Behaviour("hang", TIMES), 0.8),
        (Behaviour("drip", TIMES), 0.8),
        (Behaviour("lose", TIMES), 0.8),
    ],
    ids=["500", "503", "429", "401", "reset", "hang", "drip", "answer lost"],
)
def test_a_bad_receiver_gets_the_same_batch_again(
    behaviour: Behaviour, shortest_wait_s: float, scenario: Scenario, stream: Stream
) -> None:
    scenario.behave(behaviour)
    change_rows(scenario)
    repeats = IN_FLIGHT if behaviour.mode == "lose" else 0
    history = judged(scenario, stream, repeats)
    assert history.parked == {}
    found = waits(history.delivered)
    assert len(found) > 0
    assert min(found) >= shortest_wait_s
    failed = [d for d in history.delivered if not (d.accepted and d.answered)]
    assert len({(d.batch_id, d.attempt) for d in failed}) == TIMES
    assert all(d.ended_at - d.started_at < TIMEOUT_S + 1 for d in failed)


def test_waits_grow_while_the_receiver_is_bad(scenario: Scenario, stream: Stream) -> None:
    scenario.behave(Behaviour("status", status=500))
    deliveries = arrived(scenario, lambda found: any(d.attempt == 4 for d in found))
    scenario.behave(Behaviour())
    attempts = max(batches(deliveries), key=len)
    found = [b.started_at - a.started_at for a, b in pairwise(attempts)]
    assert found[1] > 1.3 * found[0]
    assert found[2] > 1.3 * found[1]
    judged(scenario, stream)


def test_a_poison_item_is_isolated_and_set_aside(scenario: Scenario, stream: Stream) -> None:
    scenario.behave(Behaviour(poison=("7",)))
    change_rows(scenario)
    with scenario.connect() as connection:
        connection.execute("UPDATE items SET version = nextval('truth.versions') WHERE id = 7")
    history = judged(scenario, stream)
    assert {key for key, _, _ in history.parked.values()} == {"7"}
    assert not any(d.accepted for d in history.delivered if d.key == "7")
    assert parked_by_status(scenario) == len(history.parked)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(poison=("7",), poison_as="status", retry_after="0.05"),
        pytest.param(Behaviour(poison=("7",), poison_as="reset"), marks=pytest.mark.soak),
        pytest.param(Behaviour(poison=("7",), poison_as="hang"), marks=pytest.mark.soak),
    ],
    ids=["500", "reset", "hang"],
)
def test_an_item_that_the_receiver_fails_at_is_found_while_others_go_through(
    behaviour: Behaviour, scenario: Scenario, stream: Stream
) -> None:
    scenario.behave(behaviour)
    seed = random.randrange(2**32)
    with scenario.changing(seed, per_second=50, keys=80), scenario.connect() as connection:
        eventually(lambda: parked_rows(connection), 240, "a parked message")
    history = judged(scenario, stream)
    assert {key for key, _, _ in history.parked.values()} == {"7"}
    assert not any(d.accepted for d in history.delivered if d.key == "7")


def parked_rows(connection: Connection) -> list[Any]:
    return connection.execute("SELECT key FROM triggerkit.parked").fetchall()


@pytest.mark.timeout(300)
def test_a_receiver_that_fails_half_of_the_time_gets_all_in_the_end(
    scenario: Scenario, stream: Stream
) -> None:
    scenario.behave(Behaviour(failing_share=0.5, retry_after="0.05"))
    change_rows(scenario, 400)
    # One that fails five times waits for half a minute in all.
    history = judged(scenario, stream, drain_s=90)
    assert history.parked == {}
    assert any(d.status == 500 for d in history.delivered)


def test_an_item_named_as_failed_is_set_aside_alone(scenario: Scenario, stream: Stream) -> None:
    scenario.behave(Behaviour(failing=("7",)))
    change_rows(scenario)
    history = judged(scenario, stream)
    assert {key for key, _, _ in history.parked.values()} == {"7"}
    assert parked_by_status(scenario) == len(history.parked)


def parked_by_status(scenario: Scenario) -> int:
    """How many messages are set aside, as `triggerkit status` says."""
    said = run_command(
        scenario.folder, "triggerkit", "status", "--json", settings=scenario.environment
    )
    consumers = orjson.loads(said.stdout)["consumers"]
    return sum(int(consumer["parked"]) for consumer in consumers)


def cut(scenario: Scenario, stream: Stream, seconds: float) -> None:
    """Nothing comes through for so long, while rows change and the stream is killed once."""
    scenario.behave(Behaviour("reset"))
    seed = random.randrange(2**32)
    with scenario.changing(seed, per_second=100, keys=100):
        until = time.monotonic() + seconds
        arrived(scenario, lambda found: len(found) > 0)
        stream.kill()
        time.sleep(max(0.0, until - time.monotonic()))
        scenario.behave(Behaviour())
    history = judged(scenario, stream, drain_s=2 * seconds + 20)
    assert history.parked == {}


def test_a_cut_of_seconds(scenario: Scenario, stream: Stream) -> None:
    cut(scenario, stream, 8)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_cut_of_a_minute(scenario: Scenario, stream: Stream) -> None:
    cut(scenario, stream, 60)
