"""A consumer group as it is at one moment, and what becomes of it: without any I/O.

A partition has one owner. When an instance comes, what it is to get is named its own (`next_owner`)
and given over when the owner asks for more, or is gone: nobody gets what another is amid. What an
instance was handed counts as done when it asks for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from triggerkit.events.groups.assignment import share

Reset = Literal["latest", "earliest", "none"]


class Options(NamedTuple):
    """How an instance consumes."""

    auto_commit: bool = True
    commit_interval_ms: int = 5000
    offset_reset: Reset = "latest"
    session_timeout_ms: int = 120_000


@dataclass(slots=True)
class Instance:
    """One of those that share a group's partitions."""

    name: str
    topics: tuple[str, ...]
    options: Options
    seen_at: datetime
    committed_at: datetime
    request: int = 0
    server: int = 0

    @property
    def ends_at(self) -> datetime:
        """Return when it is gone if nothing is heard of it."""
        return self.seen_at + timedelta(milliseconds=self.options.session_timeout_ms)


@dataclass(slots=True)
class Place:
    """Where a group is in one partition; see the table `event_offsets`."""

    topic: str
    partition: int
    owner: str | None = None
    next_owner: str | None = None
    first: int | None = None
    committed: int | None = None
    position: int | None = None
    handed_from: int | None = None
    topic_id: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Its topic and its partition."""
        return self.topic, self.partition

    @property
    def offsets(self) -> tuple[int | None, ...]:
        """Its offsets, in the order of the table's columns."""
        return self.first, self.committed, self.position, self.handed_from

    def give(self, owner: str | None) -> None:
        """Give the partition to `owner`, who goes on after what is committed."""
        self.owner, self.next_owner = owner, None
        self.position = self.first if self.committed is None else self.committed
        self.handed_from = None

    def start(self, position: int) -> None:
        """Begin at `position`, for which there is no other reason than where the topic is."""
        self.position = position
        self.handed_from = None
        if self.committed is None:
            self.first = position

    def commit(self, offset: int | None) -> None:
        """Note that another is to go on at `offset`."""
        if offset is not None:
            self.committed = offset

    def confirm(self, offset: int | None) -> None:
        """Commit because the owner says so: of what it was handed, what is before has arrived."""
        self.commit(offset)
        if offset is None or self.handed_from is None or self.position is None:
            return
        is_all = offset >= self.position
        self.handed_from = None if is_all else max(offset, self.handed_from)

    def belong(self, topic_id: str | None, first: int) -> None:
        """See that the offsets are of this topic, which begins at `first`. Those of another one of
        its name, which is no more, say nothing of it: all of its messages are new. None: which it
        is is not known."""
        if topic_id is None or topic_id == self.topic_id:
            return
        if self.topic_id is not None:
            self.committed = None
            self.start(first)
        self.topic_id = topic_id


@dataclass(slots=True)
class Group:
    """The instances of a group and its places."""

    id: int
    now: datetime
    instances: dict[str, Instance] = field(default_factory=dict)
    places: dict[tuple[str, int], Place] = field(default_factory=dict)
    #: Whether others have something to look at.
    has_changed: bool = False

    @property
    def partitions(self) -> dict[str, int]:
        """Return how many partitions of each topic are shared."""
        found: dict[str, int] = {}
        for topic, partition in self.places:
            found[topic] = max(found.get(topic, 0), partition + 1)
        return found

    def owned(self, name: str) -> list[Place]:
        """Return the places of an instance."""
        return [place for place in self.places.values() if place.owner == name]

    def heed_clock(self) -> None:
        """Take for now what is later than now: the clock was set back. What was noted by the other
        clock would hold for as long as that was."""
        for one in self.instances.values():
            one.seen_at = min(one.seen_at, self.now)
            one.committed_at = min(one.committed_at, self.now)

    def expire(self) -> None:
        """Remove those that were silent for too long; what they were handed last comes again."""
        for name in [one.name for one in self.instances.values() if one.ends_at <= self.now]:
            instance = self.instances.pop(name)
            for place in self.owned(name):
                if instance.options.auto_commit:
                    last = place.position if place.handed_from is None else place.handed_from
                    place.commit(last)
                place.give(place.next_owner)
            self.has_changed = True

    def leave(self, name: str) -> None:
        """Remove an instance that says it is done; as a consumer of Kafka that is closed, it
        commits what it was handed if it commits by itself."""
        instance = self.instances.pop(name)
        for place in self.owned(name):
            if instance.options.auto_commit:
                place.commit(place.position)
            place.give(place.next_owner)
        self.has_changed = True

    def enter(self, name: str, topics: tuple[str, ...], options: Options) -> Instance:
        """Take in a request to consume: of a new instance its options count."""
        instance = self.instances.get(name)
        if instance is None:
            instance = Instance(name, topics, options, self.now, self.now)
            self.instances[name] = instance
            self.has_changed = True
        elif set(instance.topics) != set(topics):
            instance.topics = topics
            self.has_changed = True
        instance.seen_at = self.now
        return instance

    def acknowledge(self, instance: Instance) -> None:
        """Take what it was handed for done, commit when it is time, and let go of what others are
        to have."""
        interval = timedelta(milliseconds=instance.options.commit_interval_ms)
        is_due = instance.options.auto_commit and self.now - instance.committed_at >= interval
        if is_due:
            instance.committed_at = self.now
        for place in self.owned(instance.name):
            place.handed_from = None
            is_let_go = place.next_owner is not None or place.topic not in instance.topics
            if is_due or (instance.options.auto_commit and is_let_go):
                place.commit(place.position)
            if place.next_owner is not None:
                place.give(place.next_owner)
                self.has_changed = True

    def take_back(self, instance: Instance) -> None:
        """Take what it was handed last for not arrived."""
        for place in self.owned(instance.name):
            if place.handed_from is not None:
                place.position = place.handed_from
                place.handed_from = None

    def balance(self, partitions: Mapping[str, int]) -> None:
        """Share the partitions of each topic among the instances that consume it; `partitions` has
        their numbers, of the topics there are."""
        for topic in dict.fromkeys(t for one in self.instances.values() for t in one.topics):
            for partition in range(partitions.get(topic, 0)):
                self.places.setdefault((topic, partition), Place(topic, partition))
        for topic in dict.fromkeys(topic for topic, _ in self.places):
            places = {p.partition: p for p in self.places.values() if p.topic == topic}
            takers = self._takers(topic, partitions)
            # A topic that was made anew may have fewer: what is beyond is nobody's share.
            count = partitions.get(topic, 0)
            owners = {n: p.next_owner or p.owner for n, p in places.items() if n < count}
            shared = share(owners, takers)
            for number, place in places.items():
                self._move(place, shared.get(number))

    def _takers(self, topic: str, partitions: Mapping[str, int]) -> list[str]:
        if topic not in partitions:
            return []
        return [one.name for one in self.instances.values() if topic in one.topics]

    def _move(self, place: Place, owner: str | None) -> None:
        if place.owner is None or place.owner not in self.instances:
            if place.owner != owner:
                place.give(owner)
                self.has_changed = True
            return
        wanted = None if place.owner == owner else owner
        if wanted != place.next_owner:
            place.next_owner = wanted
            self.has_changed = True
        if owner is None:
            place.give(None)

    def first_end(self, but: str) -> datetime | None:
        """Return when the first of the other instances is gone if nothing is heard of it."""
        return min(
            (one.ends_at for one in self.instances.values() if one.name != but), default=None
        )

    def only(self, keys: Iterable[tuple[str, int]]) -> list[Place]:
        """Return the places of `keys` there are."""
        return [self.places[key] for key in keys if key in self.places]
