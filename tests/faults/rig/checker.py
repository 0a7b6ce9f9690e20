"""The checker: eight rules over the history of a run, each violation with its reason."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

from tests.faults.rig.history import Bounds, Committed, Delivery, Effect, History, What

Rule = Literal["loss", "phantom", "rows", "order", "repeats", "ack safety", "effects", "liveness"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a run broke a rule."""

    rule: Rule
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def check(history: History, bounds: Bounds | None = None) -> list[Violation]:
    """All violations of the eight rules, by rule; none when the run kept its promises."""
    bounds = bounds or Bounds()
    return [
        *_named("loss", lost(history)),
        *_named("phantom", phantoms(history)),
        *_named("rows", stale_rows(history)),
        *_named("order", disorder(history)),
        *_named("order", older_states(history)),
        *_named("repeats", repeats(history, bounds)),
        *_named("ack safety", early_confirmations(history)),
        *_named("effects", wrong_effects(history, bounds)),
        *_named("liveness", stalls(history, bounds)),
    ]


def explain(violations: list[Violation], most: int = 8) -> str:
    """The violations as text for a failed assertion: how many of each rule, and the first ones."""
    counts = Counter(v.rule for v in violations)
    return "\n".join([str(dict(counts)), *map(str, violations[:most])])


def lost(history: History) -> Iterator[str]:
    """Rule 1: every change is delivered (or parked), every earlier row at least once."""
    arrived = {_identity(d) for d in _taken(history)} | set(history.parked.values())
    keys = {key for key, _, _ in arrived}
    for change in history.committed:
        if change.required and (change.key, change.op, change.version) not in arrived:
            yield f"{_told(change)} never arrived"
    existing = {c.key for c in history.committed if not c.required and c.op != "delete"}
    gone = {c.key for c in history.committed if not c.required and c.op == "delete"}
    for key in sorted(existing - gone - keys):
        yield f"row {key} was there before the consumer and never arrived"


def phantoms(history: History) -> Iterator[str]:
    """Rule 2: nothing is delivered that was not committed, value for value, place for place."""
    changes: dict[What, Committed] = {(c.key, c.op, c.version): c for c in history.committed}
    rows = {(c.key, c.version): c.hash for c in history.committed if c.op != "delete"}
    places: dict[What, tuple[int, int]] = {}
    named: dict[str, What] = {}
    for delivery in history.delivered:
        what = _identity(delivery)
        if delivery.action == "read":
            yield from _differs_from_row(delivery, rows.get((delivery.key, delivery.version)))
            continue
        change = changes.get(what)
        if change is None:
            yield f"{_seen(delivery)} was never committed"
            continue
        yield from _differs_from(change, delivery, history.commit_lsns)
        if places.setdefault(what, delivery.place) != delivery.place:
            yield f"{_seen(delivery)} came from two places of the log"
        if named.setdefault(delivery.id, what) != what:
            yield f"{_seen(delivery)} has the id of another change"


def _differs_from_row(delivery: Delivery, row_hash: str | None) -> Iterator[str]:
    if row_hash is None:
        yield f"{_seen(delivery)} was never a row"
    elif row_hash != delivery.hash:
        yield f"{_seen(delivery)} differs from the row that was read"


def _differs_from(
    change: Committed, delivery: Delivery, commit_lsns: Mapping[int, int]
) -> Iterator[str]:
    if change.hash != delivery.hash:
        yield f"{_seen(delivery)} differs from what was committed"
    if delivery.xid is not None and delivery.xid != change.xid:
        yield f"{_seen(delivery)} names transaction {delivery.xid}, not {change.xid}"
    commit_lsn = commit_lsns.get(change.xid, delivery.lsn)
    if commit_lsn != delivery.lsn:
        yield f"{_seen(delivery)} names commit {delivery.lsn}, not {commit_lsn}"


def stale_rows(history: History) -> Iterator[str]:
    """Rule 3: the last version that arrived of each key is the table's; deletes were seen."""
    last = {delivery.key: delivery for delivery in _taken(history)}
    waiting = {key for key, _, _ in history.parked.values()}
    known = {c.key for c in history.committed if c.required}
    for key, delivery in last.items():
        if key in waiting:
            continue
        row = history.rows.get(key)
        if row is None:
            if delivery.action != "delete" and key in known:
                yield f"row {key} is gone, but the last to arrive was {_seen(delivery)}"
        elif delivery.action == "delete" or (delivery.version, delivery.hash) != row:
            yield f"row {key} has version {row[0]}, but the last to arrive was {_seen(delivery)}"
    for key in sorted(history.rows.keys() - last.keys() - waiting):
        yield f"row {key} is in the table and never arrived"


def disorder(history: History) -> Iterator[str]:
    """Rule 4: per key in commit order, a later version only once the one before was taken."""
    by_key: defaultdict[str, list[Delivery]] = defaultdict(list)
    for delivery in history.delivered:
        by_key[delivery.key].append(delivery)
    for deliveries in by_key.values():
        yield from _disorder_of_key(deliveries, history.parked)


def older_states(history: History) -> Iterator[str]:
    """Rule 4, of rows that were read too: no older state of a row arrives after a newer one.

    A row that was read has the place of its chunk in the log, which says nothing of its age; the
    order of the operations on its key does. What was taken again counts as of its first time.
    """
    operations = {(c.key, c.version, c.op == "delete"): c.op_id for c in history.committed}
    newest: dict[str, tuple[int, Delivery]] = {}
    seen: set[str] = set()
    for delivery in history.delivered:
        if not delivery.accepted or delivery.id in seen:
            continue
        seen.add(delivery.id)
        what = (delivery.key, delivery.version, delivery.action == "delete")
        operation = operations.get(what, 0)
        before, newer = newest.get(delivery.key, (0, delivery))
        if operation < before:
            yield f"{_seen(delivery)} came after {_seen(newer)}, which is newer"
        else:
            newest[delivery.key] = operation, delivery


def _disorder_of_key(deliveries: list[Delivery], parked: Mapping[str, What]) -> Iterator[str]:
    requests: defaultdict[tuple[float, str, int], list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        requests[delivery.started_at, delivery.batch_id, delivery.attempt].append(delivery)
    seen: dict[str, Delivery] = {}
    taken: dict[str, Delivery] = {}
    for _, request in sorted(requests.items(), key=lambda item: item[0]):
        if any(a.place >= b.place for a, b in pairwise(request)):
            yield f"{_seen(request[0])} and its later versions were out of order in one request"
        yield from _sent_too_early(request[0], seen, taken, parked)
        seen.update((d.id, d) for d in request)
        for delivery in request:
            # An attempt that the sender gave up may be answered after the one that followed it.
            earliest = taken.get(delivery.id, delivery)
            if delivery.accepted and delivery.ended_at <= earliest.ended_at:
                taken[delivery.id] = delivery


def _sent_too_early(
    first: Delivery,
    seen: Mapping[str, Delivery],
    taken: Mapping[str, Delivery],
    parked: Mapping[str, What],
) -> Iterator[str]:
    """What an attempt, told by its first message, shows of messages sent or taken before it."""
    for later in taken.values():
        if first.place < later.place and first.batch_id != later.batch_id:
            yield f"{_seen(first)} was sent after {_seen(later)} was taken"
    for before in seen.values():
        if before.place >= first.place or before.id in parked:
            continue
        was = taken.get(before.id)
        if was is None or was.ended_at > first.started_at:
            yield f"{_seen(first)} was sent before {_seen(before)} was taken"


def repeats(history: History, bounds: Bounds) -> Iterator[str]:
    """Rule 5: what was taken twice was in flight: the same batch, id and body, and not too many."""
    taken: defaultdict[str, list[Delivery]] = defaultdict(list)
    for delivery in history.delivered:
        if delivery.accepted:
            taken[delivery.id].append(delivery)
    extra = 0
    for deliveries in taken.values():
        extra += len(deliveries) - 1
        if len({d.batch_id for d in deliveries}) > 1:
            yield f"{_seen(deliveries[0])} was taken in two batches"
    if extra > bounds.repeats:
        yield f"{extra} messages were taken more than once; at most {bounds.repeats} were in flight"
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    for delivery in history.delivered:
        bodies[delivery.batch_id].add(delivery.batch_hash)
    for batch_id, hashes in bodies.items():
        if len(hashes) > 1:
            yield f"batch {batch_id} was sent with {len(hashes)} different bodies"


def early_confirmations(history: History) -> Iterator[str]:
    """Rule 6: no transaction whose commit is before the confirmed LSN was missing from the log.

    A commit at the LSN itself is not confirmed: the record before it may end exactly there.
    """
    wanted = {c.xid for c in history.committed if c.required}
    lsns = sorted({lsn for xid, lsn in history.commit_lsns.items() if xid in wanted})
    for sample in history.samples:
        first = bisect_right(lsns, sample.logged_lsn)
        missing = lsns[first : bisect_left(lsns, sample.confirmed_lsn)]
        if missing:
            yield (
                f"{sample.confirmed_lsn} was confirmed when the log ended at {sample.logged_lsn}: "
                f"{len(missing)} transactions were missing, the first at {missing[0]}"
            )


def wrong_effects(history: History, bounds: Bounds) -> Iterator[str]:
    """Rule 7: what the task wrote is the table; repeats are bounded, and versions in order."""
    if history.effect_rows is None:
        return
    rows = {key: row_hash for key, (_, row_hash) in history.rows.items()}
    for key in sorted(rows.keys() | history.effect_rows.keys()):
        if rows.get(key) != history.effect_rows.get(key):
            yield f"row {key}: {_compared(rows.get(key), history.effect_rows.get(key))}"
    times = Counter((e.key, e.place) for e in history.effects)
    extra = sum(times.values()) - len(times)
    if extra > bounds.effect_repeats:
        yield f"{extra} effects were repeated; at most {bounds.effect_repeats} were in flight"
    yield from _effects_in_order(history.effects)


def _effects_in_order(effects: Iterable[Effect]) -> Iterator[str]:
    begun: set[tuple[str, tuple[int, int]]] = set()
    newest: dict[str, Effect] = {}
    for effect in effects:
        if (effect.key, effect.place) in begun:
            continue
        begun.add((effect.key, effect.place))
        before = newest.setdefault(effect.key, effect)
        if effect.place < before.place:
            yield (
                f"row {effect.key}: version {effect.version} was processed after "
                f"version {before.version}"
            )
        else:
            newest[effect.key] = effect


def stalls(history: History, bounds: Bounds) -> Iterator[str]:
    """Rule 8: after the last fault all is drained in time, and the slot holds little back."""
    if history.drained_s is None:
        yield f"not drained within {bounds.drain_s:g} s"
    elif history.drained_s > bounds.drain_s:
        yield f"drained after {history.drained_s:.1f} s, not within {bounds.drain_s:g} s"
    if history.slot_lag_bytes > bounds.slot_lag_bytes:
        yield f"the slot holds back {history.slot_lag_bytes} bytes"


def _named(rule: Rule, found: Iterable[str]) -> list[Violation]:
    return [Violation(rule, what) for what in found]


def _taken(history: History) -> list[Delivery]:
    """What was taken or set aside, in order of arrival."""
    return [d for d in history.delivered if d.accepted or d.id in history.parked]


def _identity(delivery: Delivery) -> What:
    return delivery.key, delivery.action, delivery.version


def _told(change: Committed) -> str:
    return f"{change.op} of row {change.key} version {change.version} (operation {change.op_id})"


def _seen(delivery: Delivery) -> str:
    return f"{delivery.action} of row {delivery.key} version {delivery.version}"


def _compared(wanted: str | None, found: str | None) -> str:
    if found is None:
        return "in the table, but the task has not written it"
    if wanted is None:
        return "gone, but the task still has it"
    return "the task wrote another value than the table has"


#: The rules by name, for tests of one rule alone.
RULES: dict[Rule, Callable[[History, Bounds], Iterable[str]]] = {
    "loss": lambda h, _: lost(h),
    "phantom": lambda h, _: phantoms(h),
    "rows": lambda h, _: stale_rows(h),
    "order": lambda h, _: chain(disorder(h), older_states(h)),
    "repeats": repeats,
    "ack safety": lambda h, _: early_confirmations(h),
    "effects": wrong_effects,
    "liveness": stalls,
}
