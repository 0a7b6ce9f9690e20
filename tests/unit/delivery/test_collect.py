"""What goes into a batch, what is set aside beside it, and how many pushes are under way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.unit.consumers.test_consumer import consumer, entry
from triggerkit.consumers.calls.functions import Outcome
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.selection import Faulty, Selection
from triggerkit.delivery import batch as module
from triggerkit.delivery.batch import Batch, collect
from triggerkit.delivery.isolation import MAX_UNWITNESSED, Health
from triggerkit.delivery.slots import PushSlots
from triggerkit.log.entry import Entry


def entries(*rows: str) -> list[Entry]:
    """An entry for each of `rows`: its key's value, in order of positions from 1."""
    return [
        entry(position=position, key=f'["{row}"]', record=b'{"id":"%b"}' % row.encode())
        for position, row in enumerate(rows, 1)
    ]


def key(row: str) -> str:
    return f'public.posts:["{row}"]'


def selection(definition: ConsumerDefinition | None = None) -> Selection:
    return Selection(consumer(definition or changes("posts")))


def positions(batch: Batch) -> tuple[list[int], list[int]]:
    """Of what is in it, and of what is set aside."""
    return [e.position for e in batch.entries], [h.entry.position for h in batch.held]


def test_a_batch_ends_before_the_message_that_is_too_many() -> None:
    made = collect(selection(), entries("a", "b", "c"), 2, ())
    assert (positions(made), made.last, made.is_full) == (([1, 2], []), 2, True)
    made = collect(selection(), entries("a", "b"), 3, ())
    assert (made.last, made.is_full) == (2, False)


def test_a_batch_is_filled_up_to_its_limit() -> None:
    rows = entries("a", "b", "c", "d")
    made = collect(selection(), rows[:1], 3, ())
    collect(selection(), rows[1:], 3, (), made)
    assert (positions(made), made.last, made.is_full) == (([1, 2, 3], []), 3, True)


def test_a_batch_ends_before_its_body_grows_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(selection().message(entries("a")[0]))
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 2 * size)
    made = collect(selection(), entries("a", "b", "c"), 10, ())
    assert (positions(made)[0], made.is_full) == ([1, 2], True)


def test_messages_behind_a_parked_one_are_set_aside() -> None:
    made = collect(selection(), entries("a", "b", "a", "c"), 10, {key("a")})
    assert positions(made) == ([2, 4], [1, 3])
    assert [held.fault for held in made.held] == [None, None]


def test_messages_behind_one_whose_function_raises_are_set_aside_with_it() -> None:
    outcomes: dict[int, Outcome] = {1: b"1", 2: Faulty("it raised"), 3: b"3", 4: b"4", 5: None}
    made = collect(selection(), entries("a", "b", "c", "b", "b"), 10, (), outcomes=outcomes)
    assert positions(made) == ([1, 3], [2, 4])
    assert [held.fault for held in made.held] == [("it raised", True), None]


def test_a_transform_makes_what_is_sent_and_leaves_the_message() -> None:
    outcomes: dict[int, Outcome] = {1: b'"a"', 2: b'"c"'}
    made = collect(selection(), entries("a", "c"), 10, (), outcomes=outcomes)
    assert made.transformed == [b'"a"', b'"c"']
    assert b'"record":{"id":"a"}' in made.messages[0]
    assert made.body(single=False) == b'{"data":[%b,%b]}' % tuple(made.transformed)


def test_what_has_no_record_is_not_sent() -> None:
    faulty = entries("a")[0]._replace(record=None, fault="too large")
    made = collect(selection(), [faulty], 10, ())
    assert positions(made) == ([], [1])
    assert made.held[0].fault is not None
    assert not made.held[0].fault.is_retryable


def test_what_was_set_aside_before_is_so_again() -> None:
    made = collect(selection(), entries("a", "b", "a"), 10, (), held_before={1, 3})
    assert positions(made) == ([2], [1, 3])


def test_a_group_is_held_as_a_whole() -> None:
    grouped = selection(changes("posts", group_by=["id"]))
    made = collect(grouped, entries("a", "b", "a"), 10, {'["a"]'})
    assert positions(made) == ([2], [1, 3])


def test_slots_are_handed_on_in_order_and_a_waiter_that_is_canceled_loses_none() -> None:
    async def scenario() -> None:
        slots = PushSlots(1)
        order: list[int] = []

        async def use(number: int) -> None:
            async with slots:
                order.append(number)

        async with slots:
            tasks = [asyncio.create_task(use(number)) for number in range(4)]
            await asyncio.sleep(0)
            tasks[1].cancel()
        # The first has been handed its slot, and is canceled before it runs.
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [2, 3]
        async with slots:
            waiting = asyncio.create_task(use(5))
            await asyncio.sleep(0)
            slots.limit = 2
            await waiting
        assert order == [2, 3, 5]

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_a_failed_retry_speaks_against_its_message_if_what_is_answered_next_was_taken() -> None:
    health = Health()
    health.failed_alone(1, number=10)
    health.witnessed(9, ok=True)
    assert not health.is_blamed(1), "the witness was sent before"
    health.failed_alone(1, number=11)
    health.witnessed(12, ok=False)
    health.witnessed(13, ok=True)
    assert not health.is_blamed(1), "the endpoint failed at the next one too"
    health.failed_alone(1, number=14)
    health.witnessed(15, ok=True)
    assert health.is_blamed(1)
    assert not health.is_blamed(1), "each failure counts once"


def test_what_is_remembered_of_failed_retries_is_bounded() -> None:
    health = Health()
    for position in range(2 * MAX_UNWITNESSED):
        # Each was sent before any other was answered.
        health.failed_alone(position, number=0)
    assert len(health.unwitnessed) == MAX_UNWITNESSED


def test_another_definition_changes_what_is_wanted() -> None:
    one = consumer(changes("posts", filters=[("id", "==", "a")]))
    other = replace(one, definition=changes("posts", filters=[("id", "==", "b")]))
    rows = entries("a", "b")
    assert positions(collect(Selection(one), rows, 10, ()))[0] == [1]
    assert positions(collect(Selection(other), rows, 10, ()))[0] == [2]


def test_a_batch_for_kafka_has_no_messages_but_is_bounded_and_can_be_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    definition = changes("posts", batch_size=10).model_copy(update={"via": "kafka"})
    into_kafka = selection(definition)
    rows = entries("a", "b", "c")
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 2 * len(rows[0].record or b""))
    made = collect(into_kafka, rows, 10, ())
    assert (positions(made)[0], made.is_full) == ([1, 2], True)
    assert made.body(single=False) == b""
    assert made.message(1) == into_kafka.message(rows[1])
