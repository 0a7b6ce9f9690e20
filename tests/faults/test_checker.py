"""Hand-made histories: each rule reports what breaks it, and only that; good ones pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.rig.checker import Rule, check
from tests.faults.rig.history import (
    AckSample,
    Bounds,
    Committed,
    Delivery,
    Effect,
    History,
    Op,
)


def change(op_id: int, key: str, version: int, op: Op = "insert", **more: bool) -> Committed:
    """A committed change; its transaction has the id `op_id`, and the commit LSN ten times that."""
    return Committed(op_id, key, version, op, op_id, f"hash of {version}", **more)


def delivery(of: Committed, at: float, **more: object) -> Delivery:
    """Its delivery at second `at`, in a batch of its own, taken half a second later."""
    found = Delivery(
        id=f"id {of.op_id}",
        key=of.key,
        lsn=of.xid * 10,
        idx=0,
        version=of.version,
        action=of.op,
        hash=of.hash,
        xid=of.xid,
        batch_id=f"batch {of.op_id}",
        batch_hash=f"body {of.op_id}",
        attempt=1,
        started_at=at,
        ended_at=at + 0.5,
        status=200,
    )
    return replace(found, **more)  # type: ignore[arg-type]


EARLIER = change(1, "a", 1, required=False)
INSERT, UPDATE, OTHER = change(2, "b", 2), change(3, "b", 3, "update"), change(4, "c", 4)
DELETE = change(5, "c", 4, "delete")
COMMITTED = [EARLIER, INSERT, UPDATE, OTHER, DELETE]
READ = delivery(EARLIER, 1, action="read", xid=None, lsn=15)
DELIVERED = [READ, *(delivery(c, c.op_id) for c in COMMITTED[1:])]

GOOD = History(
    committed=COMMITTED,
    delivered=DELIVERED,
    rows={"a": (1, "hash of 1"), "b": (3, "hash of 3")},
    commit_lsns={c.xid: c.xid * 10 for c in COMMITTED},
    samples=[AckSample(20, 20), AckSample(45, 40), AckSample(60, 50)],
    effects=[Effect(d.key, d.lsn, d.idx, d.version) for d in DELIVERED],
    effect_rows={"a": "hash of 1", "b": "hash of 3"},
    drained_s=1.0,
)


def with_delivery(at: int, **more: object) -> History:
    """The good history, one of its deliveries changed."""
    changed = list(DELIVERED)
    changed[at] = replace(changed[at], **more)  # type: ignore[arg-type]
    return replace(GOOD, delivered=changed)


def without(at: int) -> History:
    return replace(GOOD, delivered=[d for n, d in enumerate(DELIVERED) if n != at])


def also(*more: Delivery) -> History:
    return replace(GOOD, delivered=[*DELIVERED, *more])


BAD: dict[str, tuple[Rule, History]] = {
    "a change never arrived": ("loss", without(3)),
    "a row that was there never arrived": ("loss", without(0)),
    "a change was only refused": ("loss", with_delivery(2, status=500)),
    "nobody committed it": ("phantom", also(delivery(change(9, "z", 9), 9))),
    "a value is another": ("phantom", with_delivery(1, hash="other")),
    "a read row's value is another": ("phantom", with_delivery(0, hash="other")),
    "the row read never was": ("phantom", with_delivery(0, version=99)),
    "the transaction is another": ("phantom", with_delivery(1, xid=99)),
    "the commit is another": ("phantom", with_delivery(1, lsn=19)),
    "one change, two places": ("phantom", also(delivery(INSERT, 2.1, idx=7))),
    "two changes, one id": ("phantom", with_delivery(3, id="id 2")),
    "a delete was not seen": ("rows", without(4)),
    "the last to arrive is old": ("rows", also(delivery(INSERT, 9))),
    "an old row was read after its change": (
        "rows",
        also(delivery(INSERT, 9, action="read", xid=None, lsn=90, id="read", batch_id="read")),
    ),
    "a later version overtakes": ("order", with_delivery(1, started_at=3.6, ended_at=3.7)),
    "a later version does not wait": ("order", with_delivery(1, ended_at=3.1)),
    "a later version does not wait for a retry": (
        "order",
        with_delivery(1, status=500),
    ),
    "an older version again": ("order", also(delivery(INSERT, 9))),
    "out of order in one request": (
        "order",
        replace(
            GOOD,
            delivered=[
                READ,
                *(
                    delivery(c, 2, batch_id="both", batch_hash="both")
                    for c in (UPDATE, INSERT, OTHER, DELETE)
                ),
            ],
        ),
    ),
    "too many were repeated": ("repeats", also(delivery(DELETE, 9))),
    "taken in two batches": ("repeats", also(delivery(DELETE, 9, batch_id="another"))),
    "a batch's body changed": (
        "repeats",
        replace(
            GOOD,
            delivered=[
                *DELIVERED[:4],
                replace(DELIVERED[4], status=500),
                delivery(DELETE, 9, attempt=2, batch_hash="another"),
            ],
        ),
    ),
    "confirmed before it was logged": (
        "ack safety",
        replace(GOOD, samples=[AckSample(31, 20)]),
    ),
    "an effect is missing": ("effects", replace(GOOD, effect_rows={"a": "hash of 1"})),
    "an effect is an orphan": (
        "effects",
        replace(GOOD, effect_rows={**(GOOD.effect_rows or {}), "c": "hash of 4"}),
    ),
    "an effect is of another value": (
        "effects",
        replace(GOOD, effect_rows={**(GOOD.effect_rows or {}), "b": "hash of 2"}),
    ),
    "an effect was repeated": ("effects", replace(GOOD, effects=GOOD.effects * 2)),
    "effects out of order": ("effects", replace(GOOD, effects=GOOD.effects[::-1])),
    "never drained": ("liveness", replace(GOOD, drained_s=None)),
    "drained late": ("liveness", replace(GOOD, drained_s=61)),
    "the slot holds WAL back": ("liveness", replace(GOOD, slot_lag_bytes=10**9)),
}


def test_a_good_history_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_a_rule_is_reported(name: str) -> None:
    rule, history = BAD[name]
    assert rule in {v.rule for v in check(history)}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    rules: set[Rule] = {rule for rule, _ in BAD.values()}
    assert len(rules) == 8


def test_a_parked_message_and_what_waits_behind_it_are_not_lost() -> None:
    refused = replace(DELIVERED[1], status=422)
    history = replace(
        GOOD,
        delivered=[DELIVERED[0], refused, *DELIVERED[3:]],
        effect_rows=None,
        parked={"id 2": ("b", "insert", 2), "id 3": ("b", "update", 3)},
    )
    assert check(history) == []


def test_a_batch_halved_after_a_refusal_is_in_order() -> None:
    whole = [delivery(c, 2, batch_id="whole", batch_hash="w", status=422) for c in (INSERT, UPDATE)]
    history = replace(GOOD, delivered=[READ, *whole, *DELIVERED[1:]])
    assert check(history) == []


def test_a_batch_of_several_versions_may_come_again() -> None:
    batches = [
        delivery(c, at, batch_id="whole", batch_hash="w", attempt=attempt)
        for attempt, at in ((1, 2), (2, 2.6))
        for c in (INSERT, UPDATE)
    ]
    history = replace(GOOD, delivered=[READ, *batches, *DELIVERED[3:]])
    assert check(history, Bounds(repeats=2)) == []


def test_a_batch_whose_answer_was_lost_may_come_again() -> None:
    lost = replace(DELIVERED[1], answered=False)
    again = delivery(INSERT, 2.6, attempt=2, ended_at=2.7)
    history = replace(GOOD, delivered=[READ, lost, again, *DELIVERED[2:]])
    assert check(history, Bounds(repeats=1)) == []
    assert {v.rule for v in check(history)} == {"repeats"}


def test_a_commit_at_the_confirmed_position_itself_is_not_confirmed() -> None:
    assert check(replace(GOOD, samples=[AckSample(30, 20)])) == []


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Runs without a fault: some rows, each with versions, delivered key by key in any mixture."""
    keys = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
    known: set[str] = set()
    committed: list[Committed] = []
    for op_id, key in enumerate(keys, 1):
        committed.append(change(op_id, key, op_id, "update" if key in known else "insert"))
        known.add(key)
    delivered = [delivery(c, float(c.op_id)) for c in committed]
    last = {c.key: c for c in committed}
    return History(
        committed=committed,
        delivered=delivered,
        rows={key: (c.version, c.hash) for key, c in last.items()},
        commit_lsns={c.xid: c.xid * 10 for c in committed},
    )


@given(histories())
def test_runs_without_a_fault_pass(history: History) -> None:
    assert check(history) == []


@given(histories(), st.data())
def test_any_single_loss_is_reported(history: History, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(history.delivered) - 1))
    delivered = [d for n, d in enumerate(history.delivered) if n != at]
    assert "loss" in {v.rule for v in check(replace(history, delivered=delivered))}


@given(histories(), st.data())
def test_any_two_versions_swapped_are_reported(history: History, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(history.delivered) - 1))
    first = history.delivered[at]
    later = [d for d in history.delivered[at + 1 :] if d.key == first.key]
    if not later:
        return
    second = data.draw(st.sampled_from(later))
    times = {first.id: second, second.id: first}
    delivered = [
        replace(d, started_at=times[d.id].started_at, ended_at=times[d.id].ended_at)
        if d.id in times
        else d
        for d in history.delivered
    ]
    assert "order" in {v.rule for v in check(replace(history, delivered=delivered))}
