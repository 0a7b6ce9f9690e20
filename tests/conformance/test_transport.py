"""What every transport of runs does, whatever carries them."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.conformance.conftest import Broker, RedisServer
from triggerkit.runs.run import ReadyRun, new_run_id
from triggerkit.runs.transport.base import Room, Source, Taken, Transport, TransportAway

#: Seconds within which what was pushed arrives, and a lost server is noticed.
SOON_S = 10.0


def ready(count: int, task: str = "work") -> list[ReadyRun]:
    """Runs that were accepted one after the other."""
    now = time.time_ns() // 1000
    return [ReadyRun(task, new_run_id(), now + place) for place in range(count)]


def ids(runs: list[ReadyRun]) -> list[str]:
    return [run.id for run in runs]


def take(source: Source) -> Taken:
    """The next one, which must come."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        if taken := source.take(1.0):
            return taken
    raise AssertionError("nothing came")


def take_all(source: Source, count: int, each: int = 1) -> list[str]:
    """So many ids, taken and acknowledged by `each` at most."""
    found: list[str] = []
    while len(found) < count:
        found += take(source).ids
        found += source.more(each - 1)
        source.acknowledge()
    return found


def first_rank(transport: Transport) -> float:
    """The rank of the task "work" alone."""
    [rank] = transport.first_ranks(["work"]).values()
    return rank


@pytest.mark.parametrize(("count", "each"), [(1, 1), (30, 1), (30, 7), (700, 100)])
def test_what_was_pushed_is_taken_in_its_order(broker: Broker, count: int, each: int) -> None:
    runs = ready(count)
    assert broker.transport().push(runs)
    source = broker.source("work")
    assert take_all(source, count, each) == ids(runs)
    assert source.take(0.05) is None


def test_pushes_follow_each_other(broker: Broker) -> None:
    transport, source = broker.transport(), broker.source("work")
    first, second = ready(3), ready(3)
    assert transport.push(first)
    assert transport.push(second)
    assert take_all(source, 6, 4) == ids(first + second)


def test_there_is_never_more_than_was_asked_for(broker: Broker) -> None:
    assert broker.transport().push(ready(50) + ready(50, "other"))
    source = broker.source("work", "other")
    taken = take(source)
    assert len(taken.ids) == 1
    assert source.more(0) == []
    assert len(source.more(3)) <= 3


def test_more_is_of_the_same_task(broker: Broker) -> None:
    runs = {"work": ready(20), "other": ready(20, "other")}
    assert broker.transport().push(runs["work"] + runs["other"])
    source = broker.source("work", "other")
    found: dict[str, list[str]] = {"work": [], "other": []}
    while sum(map(len, found.values())) < 40:
        taken = take(source)
        found[taken.task] += taken.ids + source.more(5)
        source.acknowledge()
    assert found == {task: ids(of_task) for task, of_task in runs.items()}


def test_where_a_task_has_too_few_the_others_fill_the_room(broker: Broker) -> None:
    runs = {f"task {number}": ready(16, f"task {number}") for number in range(15)}
    transport = broker.transport()
    for of_task in runs.values():
        # Each is a queue of its own, which takes RabbitMQ its time.
        comes_back(partial(transport.push, of_task))
    source = broker.source("idle", *runs)
    found: dict[str, list[str]] = {task: [] for task in runs}
    takes = 0
    while sum(map(len, found.values())) < 240:
        taken = take(source)
        takes += 1
        # Two of each of these to a slot, ten of all others.
        room = Room(8, 100, lambda task: 2 if task in ("task 1", "task 2") else 10)
        room.took(taken.task, 1)
        ids_of = [taken, Taken(taken.task, source.more(room.of(taken.task)), True)]
        room.took(taken.task, len(ids_of[1].ids))
        ids_of += source.others(room)
        source.acknowledge()
        assert sum(len(some.ids) / room.each(some.task) for some in ids_of) <= 9
        assert sum(len(some.ids) for some in ids_of) <= 100
        for some in ids_of:
            found[some.task] += some.ids
    assert found == {task: ids(of_task) for task, of_task in runs.items()}
    if isinstance(broker.server, RedisServer):
        assert takes <= 10


def test_others_are_left_where_there_is_no_room(broker: Broker) -> None:
    assert broker.transport().push(ready(5) + ready(5, "other"))
    source = broker.source("work", "other")
    take(source)
    room = Room(1, 100, lambda _: 1)
    room.took("work", 1)
    assert source.others(room) == []
    assert source.others(Room(5, 0, lambda _: 1)) == []


def test_what_is_taken_of_several_tasks_and_not_acknowledged_comes_again(broker: Broker) -> None:
    if isinstance(broker.server, RedisServer):
        pytest.skip("the keeper pushes again what was taken of Redis")
    runs = ready(3) + ready(3, "other")
    assert broker.transport().push(runs)
    source = broker.source("work", "other")
    taken = take(source)
    source.more(5)
    source.others(Room(9, 100, lambda _: 1))
    found: set[str] = set()
    while len(found) < 6:
        found |= {*take(source).ids, *source.more(9)}
        source.acknowledge()
    assert found == set(ids(runs))
    assert taken.ids[0] in found


def test_a_task_with_a_backlog_does_not_hold_up_another(broker: Broker) -> None:
    transport = broker.transport()
    source = broker.source("work", "other")
    assert transport.push(ready(300) + ready(1, "other"))
    tasks = []
    for _ in range(20):
        tasks.append(take(source).task)
        source.acknowledge()
    assert "other" in tasks


def test_a_take_waits_for_a_push(broker: Broker) -> None:
    transport, source = broker.transport(), broker.source("work")
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(take, source)
        [run] = ready(1)
        assert transport.push([run])
        assert taking.result(SOON_S).ids == [run.id]


def test_a_take_without_a_push_ends_in_time(broker: Broker) -> None:
    source = broker.source("work")
    started = time.monotonic()
    assert source.take(0.2) is None
    assert time.monotonic() - started < SOON_S


def waking(source: Source) -> None:
    """Wake takes until one is woken: one that began later is woken as well."""
    started = time.monotonic()
    timer = threading.Timer(0.05, source.wake)
    timer.start()
    assert source.take(SOON_S / 2) is None
    timer.join()
    assert time.monotonic() - started < SOON_S / 4


def test_a_take_is_woken(broker: Broker) -> None:
    source = broker.source("work")
    waking(source)
    [run] = ready(1)
    assert broker.transport().push([run])
    assert take(source).ids == [run.id]


def test_a_wake_counts_for_the_next_take(broker: Broker) -> None:
    source = broker.source("work")
    source.wake()
    started = time.monotonic()
    assert source.take(SOON_S / 2) is None
    assert time.monotonic() - started < SOON_S / 4


def test_an_id_pushed_twice_arrives(broker: Broker) -> None:
    transport, source = broker.transport(), broker.source("work")
    runs = ready(3)
    assert transport.push(runs)
    assert transport.push(runs)
    found: set[str] = set()
    while found != set(ids(runs)):
        found |= {*take(source).ids, *source.more(10)}
        source.acknowledge()


def test_two_sources_share_what_there_is(broker: Broker) -> None:
    runs = ready(400)
    assert broker.transport().push(runs)
    left = set(ids(runs))
    guard = threading.Lock()

    def work(source: Source) -> int:
        count = 0
        while left:
            taken = source.take(0.2)
            if taken is None:
                continue
            found = taken.ids + source.more(9)
            source.acknowledge()
            with guard:
                count += len(found)
                left.difference_update(found)
        return count

    sources = [broker.source("work") for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        counts = list(threads.map(work, sources))
    assert sum(counts) >= 400


def test_installations_and_tasks_do_not_meet(broker: Broker) -> None:
    other = broker.transport("another installation")
    assert other.push(ready(3))
    assert broker.transport().push(ready(3, "other"))
    assert broker.source("work").take(0.1) is None
    assert first_rank(broker.transport()) == math.inf


def test_the_first_rank_tells_whether_there_is_any(broker: Broker) -> None:
    transport = broker.transport()
    runs = ready(5)
    assert first_rank(transport) == math.inf
    assert transport.push(runs)
    # No greater than that of the first: or runs would be pushed again that are there.
    assert first_rank(transport) <= runs[0].rank
    source = broker.source("work")
    assert take_all(source, 5, 5) == ids(runs)
    assert first_rank(transport) == math.inf


def test_pushing_nothing_is_no_failure(broker: Broker) -> None:
    assert broker.transport().push([])


@pytest.mark.parametrize("task", ["a.DQ", "ä ö", "a:b/c", "x" * 120])
def test_tasks_have_all_kinds_of_names(broker: Broker, task: str) -> None:
    runs = ready(3, task)
    assert broker.transport().push(runs)
    assert take_all(broker.source(task), 3) == ids(runs)


def test_an_event_loop_pushes_too(broker: Broker) -> None:
    runs = ready(150)

    async def push() -> list[bool]:
        transport = broker.async_transport()
        await transport.check()
        pushed = await asyncio.gather(*(transport.push([run]) for run in runs))
        pushed.append(await transport.push([]))
        await transport.close()
        return pushed

    assert asyncio.run(push()) == [True] * 151
    assert set(take_all(broker.source("work"), 150, 10)) == set(ids(runs))


def comes_back(push: Callable[[], bool]) -> None:
    """A push succeeds again, soon after the server is back."""
    until = time.monotonic() + SOON_S
    while not push():
        assert time.monotonic() < until


def test_a_server_that_is_away_is_told_of_and_found_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    transport: Transport = broker.transport()
    source = broker.source("work")
    early, late = ready(2)
    assert transport.push([early])
    assert take(source).ids == [early.id]
    source.acknowledge()
    with broker.server.away():
        assert not transport.push([late])
        assert "the runs are safe, and start when it is back" in caplog.text
        with pytest.raises(TransportAway):
            first_rank(transport)
        with pytest.raises(TransportAway):
            source.take(SOON_S)
        source.wake()
    comes_back(lambda: transport.push([late]))
    assert take_back(source) == late.id


def take_back(source: Source) -> str:
    """The next id, as a fetcher takes it: again after an error."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        try:
            if taken := source.take(1.0):
                source.acknowledge()
                return taken.ids[0]
        except TransportAway:
            continue
    raise AssertionError("nothing came")


def test_an_event_loop_is_told_too(broker: Broker) -> None:
    [run] = ready(1)

    async def push() -> list[bool]:
        transport = broker.async_transport()
        pushed = [await transport.push([run])]
        with broker.server.away():
            pushed.append(await transport.push([run]))
            with pytest.raises(TransportAway):
                await transport.check()
        pushed.append(await transport.push([run]))
        await transport.close()
        return pushed

    assert asyncio.run(push()) == [True, False, True]


def test_a_transport_opened_while_the_server_is_away_finds_it_later(broker: Broker) -> None:
    [run] = ready(1)
    with broker.server.away():
        transport, source = broker.transport(), broker.source("work")
        assert not transport.push([run])
        with pytest.raises(TransportAway):
            source.take(SOON_S)
    comes_back(lambda: transport.push([run]))
    assert take_back(source) == run.id
