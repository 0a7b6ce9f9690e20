"""Consume by group: begin a turn, hand out what was read, commit, leave.

Guarantee: a message is handed to the group again until it is committed, or its instance asked for
more with auto-commit on; no message is handed out while another instance is amid its partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.events.groups.group import Group, Instance, Options, Place
from triggerkit.events.groups.server import Server, is_gone
from triggerkit.events.groups.store import (
    GroupName,
    held_group,
    make_group,
    read_group,
    read_groups,
)
from triggerkit.events.message import Message
from triggerkit.events.source import Source, TopicPartition, View


class Superseded(TriggerkitError):
    """Another request consumes by the name of this instance; give each consumer its own name."""


class UnknownInstance(TriggerkitError):
    """The group has no such instance: it was silent for longer than its session, or never came."""


class NotOwned(TriggerkitError):
    """Another instance of the group has the partition now; what it commits counts."""


class NoOffset(TriggerkitError):
    """The group has no offset to go on from, and it is not to begin anywhere by itself."""


class Consuming(NamedTuple):
    """A request to consume."""

    group: str
    instance: str
    topics: tuple[str, ...]
    options: Options


class Turn(NamedTuple):
    """What a request may read: from where on in each of its partitions; `ends_s` is when another
    instance is gone if nothing is heard of it, `session_s` when this one is."""

    group_id: int
    request: int
    view: View
    offsets: dict[TopicPartition, int]
    ends_s: float | None
    session_s: float


class Groups:
    """The groups of one state database that read one source, as one process serves them."""

    def __init__(self, dsn: str, source: Source) -> None:
        self._server = Server(dsn)
        self._source = source

    async def close(self) -> None:
        """Let others know that this process is gone."""
        await self._server.close()

    async def begin(
        self,
        connection: psycopg.AsyncConnection,
        consuming: Consuming,
        request: int | None = None,
    ) -> Turn:
        """Take a request in, or with its number `request` show that it still waits.

        Raises:
            Superseded: another request of the instance came meanwhile.
            UnknownTopic: there is no topic of such a name, or not any more.
            NoOffset: an offset is missing, and the instance says that none is to be taken.
            KafkaFault: Kafka does not answer.
        """
        number = await self._server.number()
        name = self._named(consuming.group)
        if request is None:
            # Who asks for what there is not leaves no group behind.
            _require(await self._source.look((), connection), consuming)
            await make_group(connection, name)
        async with held_group(connection, name) as group:
            if group is None:
                raise Superseded
            # Now that nobody moves the group's places: none is beyond the end that is seen.
            view = await self._source.look(consuming.topics, connection)
            _require(view, consuming)
            if request is None:
                instance = await self._enter(connection, group, consuming, number)
            else:
                instance = _still_waiting(group, consuming, request)
            # Of one that waits nothing is under way: it lets go at once.
            group.acknowledge(instance)
            group.balance(view.partitions)
            owned = [
                place
                for place in group.owned(consuming.instance)
                # One that it consumes no more is another's as soon as it asks again; a topic that
                # was made anew may have fewer.
                if place.topic in consuming.topics
                and place.partition < view.partitions.get(place.topic, 0)
            ]
            for place in owned:
                place.belong(view.id_of(place.topic), view.bounds_of(*place.key).first)
                await _place_within(place, instance, view)
            first_end = group.first_end(consuming.instance)
            ends_s = None if first_end is None else (first_end - group.now).total_seconds()
            offsets = {(p.topic, p.partition): p.position for p in owned if p.position is not None}
            session_s = instance.options.session_timeout_ms / 1000
            return Turn(group.id, instance.request, view, offsets, ends_s, session_s)

    def _named(self, group: str) -> GroupName:
        return GroupName(group, self._source.name)

    async def _enter(
        self,
        connection: psycopg.AsyncConnection,
        group: Group,
        consuming: Consuming,
        number: int,
    ) -> Instance:
        group.expire()
        instance = group.enter(consuming.instance, consuming.topics, consuming.options)
        if instance.server not in (0, number) and await is_gone(connection, instance.server):
            group.take_back(instance)
        instance.request += 1
        instance.server = number
        return instance

    async def hand_out(
        self,
        connection: psycopg.AsyncConnection,
        consuming: Consuming,
        turn: Turn,
        following: Mapping[TopicPartition, int],
        messages: Sequence[Message],
        has_left: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Note that `messages` are about to be answered, and that the next are at `following`.

        Returns whether they may be: not when a partition went to another, or the caller is gone.

        Raises:
            Superseded: another request of the instance came meanwhile.
        """
        moved = {key: to for key, to in following.items() if to != turn.offsets[key]}
        handed = {(message.topic, message.partition) for message in messages}
        if not moved:
            return not has_left()
        try:
            return await self._move(connection, consuming, turn, moved, handed, has_left)
        except TriggerkitError:
            raise
        except BaseException:
            # Whether it was stored is not known, and it is not answered: as if this process died.
            await self._server.close()
            raise

    async def _move(
        self,
        connection: psycopg.AsyncConnection,
        consuming: Consuming,
        turn: Turn,
        moved: Mapping[TopicPartition, int],
        handed: set[TopicPartition],
        has_left: Callable[[], bool],
    ) -> bool:
        async with held_group(connection, self._named(consuming.group)) as group:
            if group is None:
                raise Superseded
            _still_waiting(group, consuming, turn.request)
            places = group.only(moved)
            is_mine = len(places) == len(moved) and all(
                place.owner == consuming.instance and place.position == turn.offsets[place.key]
                for place in places
            )
            if not is_mine or has_left():
                return False
            for place in places:
                place.handed_from = place.position if place.key in handed else None
                place.position = moved[place.key]
        return True

    async def commit(
        self,
        connection: psycopg.AsyncConnection,
        group_name: str,
        name: str,
        offsets: Sequence[tuple[TopicPartition, int]] | None,
    ) -> None:
        """Commit offsets; None is all that the instance was handed.

        Raises:
            UnknownInstance: the group has no such instance, or not any more.
            NotOwned: a partition is not the instance's.
        """
        async with held_group(connection, self._named(group_name)) as group:
            _known(group, group_name, name)
            assert group is not None
            group.instances[name].seen_at = group.now
            for place in group.owned(name) if offsets is None else ():
                place.confirm(place.position)
            for (topic, partition), offset in offsets or ():
                place = group.places.get((topic, partition), Place(topic, partition))
                if place.owner != name:
                    raise NotOwned(
                        f"partition {partition} of {topic} is not with the instance {name} now; "
                        "consume to see what is, and commit no other"
                    )
                place.confirm(offset)

    async def committed(
        self, connection: psycopg.AsyncConnection, group_name: str, keys: Sequence[TopicPartition]
    ) -> list[int | None]:
        """Return what is committed of each of `keys`."""
        group = await read_group(connection, self._named(group_name))
        places = {} if group is None else group.places
        return [places[key].committed if key in places else None for key in keys]

    async def list_groups(self, connection: psycopg.AsyncConnection) -> list[tuple[str, Group]]:
        """Return all groups by name, without the instances that were silent for too long."""
        groups = await read_groups(connection, self._source.name)
        for _, group in groups:
            group.expire()
        return groups

    async def leave(self, connection: psycopg.AsyncConnection, group_name: str, name: str) -> None:
        """Remove an instance; see the function."""
        await leave(connection, self._named(group_name), name)


async def leave(connection: psycopg.AsyncConnection, group_name: GroupName, name: str) -> None:
    """Remove an instance; the others get its partitions.

    Raises:
        UnknownInstance: the group has no such instance.
    """
    async with held_group(connection, group_name) as group:
        _known(group, group_name.name, name)
        assert group is not None
        group.leave(name)
        group.balance(group.partitions)


def _require(view: View, consuming: Consuming) -> None:
    for topic in consuming.topics:
        view.require_topic(topic)


def _known(group: Group | None, group_name: str, name: str) -> None:
    if group is not None:
        group.expire()
    if group is None or name not in group.instances:
        raise UnknownInstance(
            f"the group {group_name} has no instance {name}: it never came, or was silent for "
            "longer than its session; consume first"
        )


def _still_waiting(group: Group, consuming: Consuming, request: int) -> Instance:
    instance = group.instances.get(consuming.instance)
    if instance is None or instance.request != request:
        raise Superseded(
            f"another request consumes as {consuming.instance}, or removed it; give each consumer "
            "of a group its own name"
        )
    instance.seen_at = group.now
    group.expire()
    return instance


async def _place_within(place: Place, instance: Instance, view: View) -> None:
    """See that the place is one where the topic can be read, by what the instance says."""
    # Of a topic that is not there now nothing is known: it may be back as it was.
    if place.position is not None and (
        view.id_of(place.topic) is None or await view.has(*place.key, place.position)
    ):
        return
    reset = instance.options.offset_reset
    if reset == "none":
        raise NoOffset(
            f"there is no offset of partition {place.partition} of {place.topic} to go on from: "
            "have an instance of another name begin with Kafka-Auto-Offset-Reset earliest or latest"
        )
    bounds = view.bounds_of(*place.key)
    place.start(bounds.end if reset == "latest" else bounds.first)
