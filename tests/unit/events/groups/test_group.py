"""Consumer groups as they become, step by step: nothing is lost, and nobody shares a partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from triggerkit.events.groups.assignment import share
from triggerkit.events.groups.group import Group, Options, Place

TOPIC = "t"
START = datetime(2026, 11, 30, tzinfo=UTC)
NAMES = ["a", "b", "c", "d", "e"]

owners = st.lists(st.sampled_from([None, *NAMES]), min_size=1, max_size=16)


@given(owners, st.sets(st.sampled_from(NAMES), min_size=1))
def test_partitions_are_shared_evenly_and_as_few_move_as_possible(
    before: list[str | None], names: set[str]
) -> None:
    found = share(dict(enumerate(before)), sorted(names))
    counts = {name: list(found.values()).count(name) for name in names}
    assert sum(counts.values()) == len(before)
    assert max(counts.values()) - min(counts.values()) <= 1
    kept = sum(found[number] == owner for number, owner in enumerate(before))
    least, more = divmod(len(before), len(names))
    had = sorted((before.count(name) for name in names), reverse=True)
    assert kept == sum(min(n, least + (i < more)) for i, n in enumerate(had))


def test_nobody_has_partitions_when_there_is_nobody() -> None:
    assert share({0: "a", 1: None}, []) == {0: None, 1: None}


class Sim:
    """A group, its log of one number per step, and what became done by whom."""

    def __init__(self, partitions: int) -> None:
        self.group = Group(1, START)
        self.partitions = partitions
        self.written = 0
        #: What each instance was handed and did not ask for more since; what was done.
        self.under_way: dict[str, set[tuple[int, int]]] = {}
        self.done: set[tuple[int, int]] = set()

    def consume(self, name: str, *, auto: bool) -> None:
        """Ask for more, and be handed all there is."""
        self.done |= self.under_way.pop(name, set())
        group = self.group
        group.expire()
        instance = group.enter(name, (TOPIC,), Options(auto, 0, "earliest", 10_000))
        group.acknowledge(instance)
        group.balance({TOPIC: self.partitions})
        handed = set()
        for place in group.owned(name):
            if place.position is None:
                place.start(0)
            assert place.position is not None
            handed |= {(place.partition, n) for n in range(place.position, self.written)}
            place.handed_from, place.position = place.position, self.written
        others = set().union(*(v for k, v in self.under_way.items() if k in group.instances))
        assert not others & handed, "another is amid what was handed out"
        self.under_way[name] = handed
        self.check()

    def leave(self, name: str) -> None:
        """Say that what was handed out is done, and that no more is asked for."""
        self.group.expire()
        if name in self.group.instances:
            self.done |= self.under_way.pop(name, set())
            self.group.leave(name)
            self.group.balance({TOPIC: self.partitions})

    def check(self) -> None:
        """See that each partition's next offset to an owner leaves out only what is done or under
        way."""
        for place in self.group.places.values():
            go_on = place.first if place.committed is None else place.committed
            for number in range(go_on or 0):
                one = (place.partition, number)
                assert one in self.done or any(one in some for some in self.under_way.values())


steps = st.lists(
    st.tuples(st.sampled_from(["consume", "leave", "silent", "write"]), st.sampled_from(NAMES)),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 8))
def test_whatever_comes_and_goes_nothing_is_lost(some: list[tuple[str, str]], count: int) -> None:
    sim = Sim(count)
    for step, name in some:
        sim.group.now += timedelta(seconds=1)
        if step == "write":
            sim.written += 1
        elif step == "consume":
            sim.consume(name, auto=True)
        elif step == "leave":
            sim.leave(name)
        elif step == "silent":
            sim.under_way.pop(name, None)
            sim.group.now += timedelta(seconds=11)
    sim.group.now += timedelta(seconds=30)
    sim.under_way.clear()
    seen: set[tuple[int, int]] = set()
    for _ in range(3):
        sim.consume("last", auto=True)
        seen |= sim.under_way["last"]
    expected = {(p, n) for p in range(count) for n in range(sim.written)}
    assert expected == sim.done | seen | sim.under_way["last"]


def test_exactly_the_partitions_of_a_silent_one_move() -> None:
    sim = Sim(8)
    for _ in range(3):
        for name in ("a", "b", "c"):
            sim.consume(name, auto=False)
    before = {name: {p.partition for p in sim.group.owned(name)} for name in "abc"}
    assert sorted(map(len, before.values())) == [2, 3, 3]
    sim.group.now += timedelta(seconds=9)
    sim.consume("b", auto=False)
    sim.consume("c", auto=False)
    sim.group.now += timedelta(seconds=2)
    sim.consume("b", auto=False)
    sim.consume("c", auto=False)
    after = {name: {p.partition for p in sim.group.owned(name)} for name in "abc"}
    assert after["a"] == set()
    assert before["b"] <= after["b"]
    assert before["c"] <= after["c"]


def test_what_a_gone_process_answered_last_is_handed_out_again() -> None:
    sim = Sim(1)
    sim.written = 3
    sim.consume("a", auto=True)
    group = sim.group
    group.take_back(group.instances["a"])
    group.acknowledge(group.instances["a"])
    (place,) = group.owned("a")
    assert (place.position, place.committed) == (0, 0)


def test_a_silent_one_with_auto_commit_repeats_only_what_it_was_handed_last() -> None:
    sim = Sim(1)
    sim.written = 3
    group = sim.group
    sim.consume("a", auto=True)
    group.instances["a"].options = Options(True, 60_000, "earliest", 10_000)
    sim.written = 5
    sim.consume("a", auto=True)
    group.now += timedelta(seconds=11)
    group.expire()
    (place,) = group.places.values()
    assert place.position == 3


def test_what_was_committed_by_request_is_not_undone_when_its_instance_is_silent() -> None:
    sim = Sim(1)
    sim.written = 6
    group = sim.group
    sim.consume("a", auto=True)
    (place,) = group.owned("a")
    place.confirm(4)
    group.now += timedelta(seconds=11)
    group.expire()
    assert (place.committed, place.position) == (4, 4)


def test_what_was_committed_by_request_does_not_come_again_after_a_gone_process() -> None:
    sim = Sim(1)
    sim.written = 6
    group = sim.group
    sim.consume("a", auto=False)
    (place,) = group.owned("a")
    place.confirm(6)
    group.take_back(group.instances["a"])
    assert place.position == 6


def test_a_clock_that_is_set_back_keeps_nobody_s_partitions_from_the_others() -> None:
    sim = Sim(2)
    sim.consume("a", auto=True)
    group = sim.group
    group.now -= timedelta(hours=1)
    group.heed_clock()
    group.now += timedelta(seconds=11)
    sim.consume("b", auto=True)
    assert "a" not in group.instances
    assert len(group.owned("b")) == 2


def test_partitions_that_are_no_more_are_nobody_s_share() -> None:
    sim = Sim(8)
    for _ in range(2):
        for name in ("a", "b"):
            sim.consume(name, auto=True)
    sim.partitions = 2
    for _ in range(2):
        for name in ("a", "b"):
            sim.consume(name, auto=True)
    assert {name: len(sim.group.owned(name)) for name in ("a", "b")} == {"a": 1, "b": 1}


def test_offsets_of_a_topic_that_was_made_anew_are_none_of_it() -> None:
    place = Place(TOPIC, 0)
    place.start(0)
    place.belong("first", 0)
    place.handed_from, place.position = 0, 9
    place.confirm(9)
    place.belong(None, 0)
    place.belong("first", 3)
    assert (place.position, place.committed) == (9, 9)
    place.belong("second", 2)
    assert place.offsets == (2, None, 2, None)
